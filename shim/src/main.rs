//! polity-shim
fn main() {}
