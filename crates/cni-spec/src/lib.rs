//! The Container Network Interface as Buoy speaks it, without any I/O.
//!
//! - [`version`], [`error`], [`args`], [`ident`], [`netconf`], [`result`]: the CNI specification, versions 0.1.0 to
//!   1.1.0, with the keys that Calico's plugins add to the network configuration.
//! - [`agent`], [`frame`]: the protocol between the CNI binary (and `buoyctl`) and the agent of the node.
//!
//! Invariants: no sockets, files, clocks or threads; nothing here panics, whatever bytes come in; unknown keys are
//! tolerated and stay in the raw document, because a third-party IPAM plugin may want them.
//!
//! What is not here: which address a workload gets, and annotations. Those are the agent's (`buoy-core`, `buoy-api`).

pub mod addr;
pub mod agent;
pub mod args;
pub mod error;
mod fields;
pub mod frame;
pub mod ident;
pub mod netconf;
pub mod result;
pub mod version;

pub use addr::MacAddr;
pub use error::{CniError, ErrorCode};
pub use netconf::NetConf;
pub use result::CniResult;
pub use version::CniVersion;
