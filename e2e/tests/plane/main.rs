//! Tests on a real API server without a node.
