//! Networks of namespaces on one machine, with real nodes, clients and workloads.
//!
//! A [`run::Run`] is one lab: its identity is part of every name it gives, so any number of labs live side by side, and
//! everything it makes goes away with it, also after a panic or an interrupt. Nothing is ever made in, or changed of, the
//! machine's own network namespace.

pub mod api;
pub mod ask;
pub mod bench;
pub mod binaries;
pub mod bird;
pub mod bystander;
pub mod checker;
pub mod cluster;
pub mod daemon;
pub mod demo;
pub mod dice;
pub mod dump;
pub mod etcd;
pub mod exec;
pub mod faults;
pub mod image;
pub mod kube;
pub mod lab;
pub mod leaks;
pub mod locker;
mod made;
pub mod netns;
pub mod node;
pub mod probe;
pub mod programs;
pub mod records;
pub mod router;
pub mod run;
pub mod runtime;
mod segment;
mod slot;
pub mod store;
pub mod sweep;
pub mod traffic;
pub mod up;
pub mod workload;
