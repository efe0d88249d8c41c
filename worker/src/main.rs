//! polity-worker
fn main() {}
