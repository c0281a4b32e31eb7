//! Simulated hosts that allocate and release against a simulated datastore, in an order, with crashes and lost
//! answers, that one seed decides.

pub(crate) mod actors;
pub(crate) mod aftermath;
pub(crate) mod check;
pub(crate) mod ends;
pub(crate) mod machine;
pub(crate) mod rng;
pub(crate) mod run;
pub(crate) mod store;
pub(crate) mod world;
