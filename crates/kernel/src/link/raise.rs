//! Raising a workload's link that somebody set down.
//!
//! With a link that goes down the kernel drops its routes and its IPv6 addresses, the link-local one among them. Without
//! that one the node asks for no Ethernet address on the link, so nothing it forwards reaches the workload by IPv6; and a
//! link that makes no address by itself does not get it back by coming up. Settings stay, and so does the inside: it has
//! lost its carrier for a while and nothing else.

use super::{
    pod::{GATEWAY_V6, Side},
    setup::{Step, address, run},
    up_message,
};
use crate::{IfIndex, error::Result, netlink::Socket};

/// Sets the host's side up, and gives it the IPv6 gateway's address if it should have it. What is as it should be stays.
///
/// # Errors
/// When the link is gone.
pub fn raise_pod_link(socket: &mut Socket, name: &str, ifindex: IfIndex, gateway_v6: bool) -> Result<()> {
    let mut steps = vec![Step::new("up", up_message(ifindex), 0)];
    if gateway_v6 {
        steps.push(address(ifindex, GATEWAY_V6.into()).replacing());
    }
    let side = Side {
        socket,
        ifindex,
        name,
    };
    run(side, steps)
}
