//! What can happen between a client and its etcd.

mod access;
mod answers;
pub(crate) mod limits;
mod members;
mod proxy;
mod restore;
mod silence;
pub(crate) mod tls;
