//! Waiting until a new link carries packets.
//!
//! What follows a link's coming up is finished by the kernel's work queues. Asking for the link makes it finish
//! at once (`linkwatch_sync_dev`, since 6.8); an older kernel finishes by itself a little later. An IPv6 address is in
//! the routing table, and listens to who asks for it, when its work item has run.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use netlink_packet_route::link::State;

use super::{
    inspect::{Link, link_by_index},
    pod::{CreatedLink, GATEWAY_V6, PodLink, Side},
};
use crate::{
    error::{Error, Result},
    route,
};

/// How long the kernel may take to make a link usable that is up: its work queues wait for their turn on a busy machine.
const PATIENCE: Duration = Duration::from_secs(8);

/// Waits for carrier and addresses of both sides.
pub(super) fn wait(mut host: Side<'_>, mut pod: Side<'_>, link: &PodLink) -> Result<CreatedLink> {
    let deadline = Instant::now() + PATIENCE;
    let inner = carrier(&mut pod, deadline)?;
    carrier(&mut host, deadline)?;
    if link.has_v6() {
        local(&mut host, GATEWAY_V6.into(), deadline)?;
        for address in link.addresses.iter().filter(|address| address.is_ipv6()) {
            local(&mut pod, *address, deadline)?;
        }
    }
    let pod_mac = inner.mac.ok_or_else(|| not_usable(&pod, "an ethernet address"))?;
    Ok(CreatedLink {
        host_ifindex: host.ifindex,
        host_name: link.host_name.clone(),
        pod_mac,
        mtu: inner.mtu,
    })
}

fn carrier(side: &mut Side<'_>, deadline: Instant) -> Result<Link> {
    until(side, deadline, "carrier", |side| {
        let found = link_by_index(side.socket, side.ifindex)?;
        Ok(found.filter(|found| found.state == State::Up))
    })
}

fn local(side: &mut Side<'_>, address: IpAddr, deadline: Instant) -> Result<()> {
    until(side, deadline, &format!("address {address}"), |side| {
        Ok(route::is_local(side.socket, address, side.ifindex)?.then_some(()))
    })
}

/// Asks until there is an answer, a little less often each time.
fn until<T>(
    side: &mut Side<'_>,
    deadline: Instant,
    missing: &str,
    mut ask: impl FnMut(&mut Side<'_>) -> Result<Option<T>>,
) -> Result<T> {
    let mut pause = Duration::from_micros(20);
    loop {
        if let Some(answer) = ask(side)? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            return Err(not_usable(side, missing));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

fn not_usable(side: &Side<'_>, missing: &str) -> Error {
    Error::NotUsable {
        name: side.name.to_owned(),
        missing: missing.to_owned(),
    }
}
