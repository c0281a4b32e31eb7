//! Who owns a floating IP.
//!
//! A request is a line in a workload's record; the grant is the binding. Nothing here does I/O or reads a clock.

pub mod candidates;
pub mod claim;
pub mod collect;
pub mod decide;
pub mod order;
pub mod rights;
pub mod standing;
