//! Pure decisions: which filter chain, which route, who may, how much.

pub mod chain;
