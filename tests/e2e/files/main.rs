//! What an operator's files can hold: bootstraps with one thing wrong, certificates of either side, files that change.

#![allow(clippy::unwrap_used)]

mod bootstraps;
mod certificates;
mod https;
