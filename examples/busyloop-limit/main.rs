//! A busy loop held by a control group; first cut follows.
fn main() {}
