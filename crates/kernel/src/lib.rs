//! The kernel as Buoy uses it: links, routes, nftables, conntrack, sockets, namespaces, sysctls.
//!
//! Purpose: one small function per kind of operation, synchronous, typed, each a thin layer over a
//! netlink message or a file below `/proc/sys`. Callers decide; nothing here keeps desired state.
//!
//! Invariants:
//! - A function works in the network namespace in which its [`netlink::Socket`] was opened. The calling
//!   thread never changes its namespace: work inside another one runs on a thread of its own
//!   ([`netns::in_netns`]).
//! - Operations are idempotent where the kernel allows it: a put replaces, a delete of what is gone
//!   succeeds.
//! - What is written is tagged (route protocol [`ROUTE_PROTOCOL`], table name [`nft::TABLE`], link alias), and
//!   only what carries the tag is read back.
//! - Batches are sent as batches, so cost per element stays in microseconds.
//!
//! Deliberately absent: retries (the agent's loop plans again), async, caches, policy.

pub mod conntrack;
mod error;
pub mod events;
pub mod link;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod route;
pub mod sockdiag;
pub mod sysctl;
mod types;

pub use error::{Error, Result};
pub use types::{Family, IfIndex, Mac};

/// Route protocol number of every route Buoy writes (`rtproto` name `buoy`).
pub const ROUTE_PROTOCOL: u8 = 177;
/// Route protocol number of every route that the routing daemon BIRD writes.
pub const BIRD_PROTOCOL: u8 = 12;
