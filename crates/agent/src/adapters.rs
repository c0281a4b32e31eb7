//! The outside world, behind bounded queues: what the loop decides is carried out here, and nothing else.

pub(crate) mod bird;
pub(crate) mod kernel;
pub(crate) mod notes;
pub(crate) mod store;
