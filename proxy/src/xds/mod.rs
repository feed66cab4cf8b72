//! xDS: the only translation from wire to IR, and the clients that feed it.

pub mod decode;
