//! What a node should look like, who owns an address, and the steps that get there.
//!
//! Invariants: pure. No sockets, files, clocks, threads or randomness; time and seeds are arguments; everything
//! iterated is ordered. The same input gives the same output, byte for byte.
//!
//! Not here: how a record is stored (`buoy-datastore`) and how an operation is applied (`buoy-kernel`, `buoy-agent`).

pub mod bird;
pub mod calc;
pub mod cluster;
pub mod desired;
pub mod duty;
pub mod edit;
pub mod endpoint;
#[cfg(test)]
mod fixtures;
pub mod floating;
pub mod ipam;
pub mod news;
pub mod observed;
pub mod op;
pub mod plan;
pub mod records;
pub mod store;
pub mod subject;
pub mod time;
pub mod view;
