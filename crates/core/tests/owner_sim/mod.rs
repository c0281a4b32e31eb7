//! Simulated nodes that own, offer, claim and take floating IPs through a simulated datastore. Clocks, partitions, crashes
//! and the order of everything follow from one seed.

pub(crate) mod acts;
pub(crate) mod agent;
pub(crate) mod check;
pub(crate) mod outage;
pub(crate) mod rest;
pub(crate) mod restore;
#[path = "../ipam_sim/rng.rs"]
pub(crate) mod rng;
pub(crate) mod run;
#[path = "../loop_model/store.rs"]
pub(crate) mod store;
pub(crate) mod task;
pub(crate) mod universe;
pub(crate) mod world;
