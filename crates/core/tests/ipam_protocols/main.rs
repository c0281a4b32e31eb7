//! Each protocol of IPAM alone: what it writes, what it answers, and what it leaves when it dies at any point.

#![expect(
    clippy::unwrap_used,
    reason = "what cannot fail in a simulated cluster is a bug of the test"
)]

mod assign;
mod chosen;
mod cluster;
mod failures;
mod release;
#[path = "../ipam_sim/store.rs"]
mod store;
