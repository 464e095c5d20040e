//! Tests against the real kernel.
fn main() {}
