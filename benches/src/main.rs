//! Measures the proxy and its peers side by side. The mesh bench arrives with the work on speed.

fn main() {}
