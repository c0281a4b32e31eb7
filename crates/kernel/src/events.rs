//! Noticing changes of links and routes.
//!
//! When a link goes, the kernel drops its IPv4 routes without a word, so [`Event::LinkGone`] speaks for them too.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use netlink_packet_core::Parseable;
use netlink_packet_route::link::LinkMessage;

use crate::{
    BIRD_PROTOCOL, IfIndex, ROUTE_PROTOCOL,
    error::{Doing, Result},
    link::{Link, link_of},
    netlink::{
        Failure, OwnPorts, Protocol, Socket,
        wire::{Messages, Received},
    },
    route::{self, Route},
};

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV6_ROUTE`.
const GROUPS: [u32; 3] = [1, 7, 11];

/// `RTM_*`.
const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;

/// A change in the network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link is new, or something about it changed.
    Link(Link),
    /// A link is gone, or moved to another namespace.
    LinkGone {
        /// The index it had.
        ifindex: IfIndex,
        /// The name it had.
        name: String,
    },
    /// Somebody else made or changed a route of our protocol.
    RoutePut(Route),
    /// Somebody else deleted a route of our protocol.
    RouteGone(Route),
    /// The routing daemon made or changed a route.
    DaemonPut(Route),
    /// The routing daemon deleted a route.
    DaemonGone(Route),
    /// So much changed that messages were lost: links and routes must be read again.
    Lost,
}

/// A subscription to links, to routes of our protocol that are not our own doing, and to the routing daemon's routes.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    own: OwnPorts,
    waiting: VecDeque<Event>,
}

impl Events {
    /// Subscribes in the calling thread's network namespace. Routes changed through a port in `own` are not told.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn subscribe(own: OwnPorts) -> Result<Self> {
        let socket = Socket::open(Protocol::Route)?;
        for group in GROUPS {
            socket.join(group).doing(|| "subscribe to links and routes")?;
        }
        Ok(Self {
            socket,
            own,
            waiting: VecDeque::new(),
        })
    }

    /// Waits for the next event, at most for `patience` (`None`: for ever). `None` when there was none.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn wait(&mut self, patience: Option<Duration>) -> Result<Option<Event>> {
        if let Some(event) = self.waiting.pop_front() {
            return Ok(Some(event));
        }
        self.socket
            .set_timeout(patience)
            .doing(|| "wait for changes of links and routes")?;
        let begin = Instant::now();
        loop {
            match self.socket.receive() {
                Ok(datagram) => {
                    let events = Messages(datagram).filter_map(|received| read(&received, &self.own));
                    self.waiting.extend(events);
                }
                Err(Failure::Timeout) => return Ok(None),
                Err(Failure::Overrun) => return Ok(Some(Event::Lost)),
                failed => {
                    return failed
                        .map(|_| None)
                        .doing(|| "wait for changes of links and routes");
                }
            }
            let in_time = patience.is_none_or(|patience| begin.elapsed() < patience);
            if !self.waiting.is_empty() || !in_time {
                return Ok(self.waiting.pop_front());
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn read(received: &Received<'_>, own: &OwnPorts) -> Option<Event> {
    match received.kind {
        NEW_LINK => link(received).map(Event::Link),
        DEL_LINK => link(received).map(|link| Event::LinkGone {
            ifindex: link.ifindex,
            name: link.name,
        }),
        // Whose change it is costs less to ask than what it says.
        NEW_ROUTE | DEL_ROUTE if own.contains(received.port) => None,
        NEW_ROUTE => route_event(received, Event::RoutePut, Event::DaemonPut),
        DEL_ROUTE => route_event(received, Event::RouteGone, Event::DaemonGone),
        _ => None,
    }
}

fn link(received: &Received<'_>) -> Option<Link> {
    let message = LinkMessage::parse(received.payload).ok()?;
    // A bridge tells of its ports in a family of its own; the link itself has not changed.
    let is_link = u8::from(message.header.interface_family) == 0;
    if is_link { link_of(message) } else { None }
}

fn route_event(
    received: &Received<'_>,
    ours: impl Fn(Route) -> Event,
    daemons: impl Fn(Route) -> Event,
) -> Option<Event> {
    let (protocol, route) = route::parse(received.payload)?;
    match protocol {
        ROUTE_PROTOCOL => Some(ours(route)),
        BIRD_PROTOCOL => Some(daemons(route)),
        _ => None,
    }
}
