//! Buoy on a real Kubernetes: whole nodes in namespaces, with a control plane.
//!
//! Tests whose name begins with `core_` belong to `make test`, too.

mod bench;
mod clean;
mod cluster;
mod faults;
mod fixed;
mod guides;
mod install;
mod nftables;
mod owners;
mod service;

#[path = "../lab/bench/measures.rs"]
mod measures;
