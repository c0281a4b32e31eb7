//! What can happen between a client and its etcd.

mod access;
mod answers;
mod limits;
mod proxy;
mod silence;
mod tls;
