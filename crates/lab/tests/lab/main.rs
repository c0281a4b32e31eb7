//! Networks of namespaces with real nodes, workloads, routers and clients.
//!
//! One program: it is linked once, and what waits in one test leaves the machine to another.

mod bad_input;
mod bad_start;
mod bench;
mod bgp;
mod bgp_faults;
mod cluster_bird;
mod cluster_checker;
mod cluster_moves;
mod cluster_names;
mod cluster_network;
mod cluster_restore;
mod cluster_stop;
mod cluster_store;
mod cni;
mod drain;
mod endure;
mod file_faults;
mod floating;
mod garbage;
mod heal;
mod image;
mod install;
mod one_node;
mod removal;
mod rights;
mod runtime;
mod store_faults;
mod visible;
