//! A small blocking netlink socket: requests with acknowledgement, dumps, batches, subscriptions.
//!
//! The kernel handles a request inside `sendmsg`, so its answer waits in the socket when the call returns;
//! the receive timeout is a guard, not a mechanism. Several messages in one send are handled in order and each
//! is answered by its sequence number.
//!
//! Messages of the route family are built and read with `netlink-packet-route`; nftables, conntrack and socket
//! diagnostics use the attribute codec in [`wire`].

mod socket;
pub(crate) mod wire;

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use nix::errno::Errno;

pub(crate) use self::socket::outcome;
pub use self::socket::{Protocol, Socket};

/// Why a netlink exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The kernel answered with an error number.
    #[error("{}{}", .errno.desc(), .detail.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// The error number.
        errno: Errno,
        /// The kernel's own words, if it gave any (extended acknowledgement).
        detail: Option<String>,
    },
    /// The socket itself failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// No answer within the receive timeout.
    #[error("the kernel did not answer in time")]
    Timeout,
    /// Messages were lost because the receive buffer was full.
    #[error("messages were lost: the receive buffer was full")]
    Overrun,
    /// What was listed kept changing while it was listed.
    #[error("the list kept changing while it was read")]
    Interrupted,
    /// The answer does not have the form it should have.
    #[error("the kernel's answer does not decode: {0}")]
    Malformed(String),
}

impl Failure {
    /// The error number, if the kernel gave one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket(error) => error.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }

    /// Nothing is wrong with the request; a later one may succeed.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Timeout | Self::Overrun | Self::Interrupted)
    }
}

/// Port numbers of sockets whose changes are our own, so that a subscription can tell a stranger's.
///
/// Clones share the list. Ports are unique per namespace and netlink protocol.
#[derive(Debug, Clone, Default)]
pub struct OwnPorts(Arc<Mutex<BTreeSet<u32>>>);

impl OwnPorts {
    /// Changes made through this port are ours from now on.
    pub fn add(&self, port: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
    }

    /// Whether changes made through this port are ours.
    pub fn contains(&self, port: u32) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&port)
    }
}
