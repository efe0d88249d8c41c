//! kubectl-polity
fn main() {}
