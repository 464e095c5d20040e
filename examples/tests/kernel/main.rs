//! Tests on the real kernel.
fn main() {}
