//! What the kernel says it did to rulesets and routes, with the time at which it said so.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::netns::Netns;

/// `RTM_NEWROUTE`, and groups as `bind` takes them: `RTMGRP_IPV4_ROUTE`.
const NEW_ROUTE: u16 = 24;
const ROUTES: u32 = 0x40;
/// `NFT_MSG_NEWSETELEM` of `NFNL_SUBSYS_NFTABLES`, and `NFNLGRP_NFTABLES`.
const NEW_ELEMENT: u16 = 10 << 8 | 12;
const NFTABLES: u32 = 1 << (7 - 1);

/// Room for what ten thousand addresses make at once.
const ROOM: usize = 256 << 20;
const ATTENTION: i64 = 50;

/// What the kernel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Added an element to a set or a map.
    Element,
    /// Added a route.
    Route,
}

/// One thing that the kernel did.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// What.
    pub(super) what: What,
    /// When this was known here.
    pub(super) at: Instant,
    /// The same by the clock of logs.
    pub(super) wall: SystemTime,
    message: Vec<u8>,
}

impl Event {
    /// Whether it is about an address.
    pub(super) fn names(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.holds(&address.octets()),
            IpAddr::V6(address) => self.holds(&address.octets()),
        }
    }

    /// Whether it is about a map or set of this name.
    pub(super) fn is_in(&self, set: &str) -> bool {
        self.holds(format!("\0{set}\0").as_bytes())
    }

    /// Whether it is a route to a floating IP (`RTA_DST`, and how all of them begin).
    pub(super) fn is_to_floating(&self) -> bool {
        self.holds(&[8, 0, 1, 0, 172, 16])
    }

    fn holds(&self, octets: &[u8]) -> bool {
        self.message.windows(octets.len()).any(|window| window == octets)
    }
}

/// A subscription inside a namespace. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Events {
    events: Receiver<Event>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Events {
    /// Subscribes; what happens from its return on is told.
    pub(super) fn subscribe(netns: &Netns) -> Result<Self> {
        let (sender, events) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (protocol, groups) in [
            (SockProtocol::NetlinkRoute, ROUTES),
            (SockProtocol::NetlinkNetFilter, NFTABLES),
        ] {
            let socket = netns.enter(move || open(protocol, groups))?;
            let (stop, sender) = (Arc::clone(&stop), sender.clone());
            threads.push(netns.spawn("events", move || listen(&socket, &stop, &sender))?);
        }
        Ok(Self {
            events,
            stop,
            threads,
        })
    }

    /// Forgets what happened until now.
    pub(super) fn clear(&self) {
        while self.events.try_recv().is_ok() {}
    }

    /// The next event. Error: none within `limit`.
    pub(super) fn next(&self, limit: Duration) -> Result<Event> {
        self.events.recv_timeout(limit).context("the kernel says nothing")
    }

    /// When the kernel had an address translated to another and a route for it.
    pub(super) fn programmed(&self, floating: IpAddr, internal: IpAddr, limit: Duration) -> Result<Instant> {
        let begun = Instant::now();
        let (mut element, mut route) = (None, None);
        while begun.elapsed() < limit {
            let event = self.next(limit)?;
            match event.what {
                What::Element if event.names(floating) && event.names(internal) => {
                    element.get_or_insert(event.at);
                }
                What::Route if event.names(floating) => {
                    route.get_or_insert(event.at);
                }
                _ => {}
            }
            if let (Some(element), Some(route)) = (element, route) {
                return Ok(element.max(route));
            }
        }
        bail!(
            "{floating} is not programmed for {internal} within {limit:?}: element {element:?}, route {route:?}"
        )
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn open(protocol: SockProtocol, groups: u32) -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )?;
    setsockopt(&socket, sockopt::RcvBufForce, &ROOM)?;
    setsockopt(
        &socket,
        sockopt::ReceiveTimeout,
        &TimeVal::milliseconds(ATTENTION),
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

fn listen(socket: &OwnedFd, stop: &AtomicBool, sender: &Sender<Event>) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(error) => return Err(error).context("cannot listen to the kernel"),
        };
        let (at, wall) = (Instant::now(), SystemTime::now());
        for (kind, message) in messages(&buffer[..length]) {
            let what = match kind {
                NEW_ELEMENT => What::Element,
                NEW_ROUTE => What::Route,
                _ => continue,
            };
            let message = message.to_vec();
            if sender
                .send(Event {
                    what,
                    at,
                    wall,
                    message,
                })
                .is_err()
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The messages of a datagram: type and all octets (`struct nlmsghdr`: length, type, …, aligned to four).
fn messages(datagram: &[u8]) -> Vec<(u16, &[u8])> {
    let mut rest = datagram;
    let mut found = Vec::new();
    while let [a, b, c, d, e, f, ..] = *rest {
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let Some(message) = rest.get(..length).filter(|message| message.len() >= 16) else {
            break;
        };
        found.push((u16::from_ne_bytes([e, f]), message));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Run;

    #[test]
    fn elements_and_routes_are_told() {
        let run = Run::begin().unwrap();
        let netns = Netns::make(&run, "a").unwrap();
        let ruleset = "table ip t { map fips { type ipv4_addr : ipv4_addr; }; }";
        netns.nft(ruleset).unwrap();
        let events = Events::subscribe(&netns).unwrap();
        let (floating, internal): (IpAddr, IpAddr) =
            ("172.16.1.3".parse().unwrap(), "10.65.0.9".parse().unwrap());
        let before = Instant::now();
        netns
            .nft(&format!("add element ip t fips {{ {floating} : {internal} }}"))
            .unwrap();
        netns.ip(&format!("route add {floating} dev lo")).unwrap();
        let at = events
            .programmed(floating, internal, Duration::from_secs(10))
            .unwrap();
        assert!(at > before && at < Instant::now());
        netns
            .nft(&format!("add element ip t fips {{ {internal} : {floating} }}"))
            .unwrap();
        let event = events.next(Duration::from_secs(10)).unwrap();
        assert_eq!(event.what, What::Element);
        assert!(event.is_in("fips") && !event.is_in("fip") && event.names(internal));
    }

    #[test]
    fn a_torn_datagram_ends_the_list() {
        let mut datagram = Vec::new();
        for kind in [24_u16, 12] {
            datagram.extend(18_u32.to_ne_bytes());
            datagram.extend(kind.to_ne_bytes());
            datagram.extend([0; 14]);
        }
        let kinds: Vec<u16> = messages(&datagram).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [24, 12]);
        assert_eq!(messages(&datagram[..30]).len(), 1);
        assert!(messages(&[]).is_empty());
    }
}
