//! The edge's server for agents and shims, and its executor of `http` calls.
pub mod egress;
pub mod http_tool;
