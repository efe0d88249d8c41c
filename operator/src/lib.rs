//! Core and `main` of the one server binary: lease, controllers, dispatch, Approvals, the server around the ledger.

pub mod agent;
pub mod apply;
pub mod approval;
pub mod cluster;
pub mod compare;
pub mod config;
pub mod context;
pub mod controllers;
pub mod core;
pub mod dispatch;
pub mod edge;
pub mod engine;
pub mod healthcheck;
pub mod internal;
pub mod killpoint;
pub mod lease;
pub mod org;
pub mod policy;
pub mod requeue;
pub mod role;
pub mod signals;
pub mod status;
pub mod task;
pub mod tool;
pub mod wakes;
