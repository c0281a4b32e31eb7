//! What can happen between a client and its server.

mod access;
pub(crate) mod answers;
pub(crate) mod limits;
mod members;
pub(crate) mod pages;
pub(crate) mod parts;
pub(crate) mod proxy;
pub(crate) mod restore;
pub(crate) mod silence;
pub(crate) mod tls;
