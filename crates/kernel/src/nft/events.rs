//! Noticing that somebody else changed the tables.

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use super::{TABLE, api, batch, batch::kind_of};
use crate::{
    Family,
    error::{Doing, Result},
    netlink::{
        Failure, OwnPorts, Protocol, Socket,
        wire::{Messages, Received, text},
    },
};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

/// What a subscription saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableEvent {
    /// Somebody else changed a table of ours.
    Foreign,
    /// So much changed that messages were lost: somebody else may have changed a table of ours.
    Lost,
}

/// A subscription to changes of the ruleset that are not our own.
#[derive(Debug)]
pub struct TableEvents {
    socket: Socket,
    own: OwnPorts,
}

impl TableEvents {
    /// Subscribes in the calling thread's network namespace. Changes through a port in `own` are not told.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn subscribe(own: OwnPorts) -> Result<Self> {
        let socket = Socket::open(Protocol::Netfilter)?;
        socket.join(GROUP).doing(|| "subscribe to changes of nftables")?;
        Ok(Self { socket, own })
    }

    /// Waits for the next event, at most for `patience` (`None`: for ever). `None` when there was none.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn wait(&mut self, patience: Option<Duration>) -> Result<Option<TableEvent>> {
        self.socket
            .set_timeout(patience)
            .doing(|| "wait for changes of nftables")?;
        let begin = Instant::now();
        loop {
            match self.socket.receive() {
                Ok(datagram) => {
                    if Messages(datagram).any(|received| is_foreign(&received, &self.own)) {
                        return Ok(Some(TableEvent::Foreign));
                    }
                    if patience.is_some_and(|patience| begin.elapsed() >= patience) {
                        return Ok(None);
                    }
                }
                Err(Failure::Timeout) => return Ok(None),
                Err(Failure::Overrun) => return Ok(Some(TableEvent::Lost)),
                failed => return failed.map(|_| None).doing(|| "wait for changes of nftables"),
            }
        }
    }
}

impl AsFd for TableEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_foreign(received: &Received<'_>, own: &OwnPorts) -> bool {
    // The end of a generation names no table. Whose change it is costs least to ask.
    let Some(kind) = kind_of(received.kind) else {
        return false;
    };
    if kind == api::NEW_GENERATION || own.contains(received.port) {
        return false;
    }
    let family = received.payload.first().copied();
    Family::BOTH.iter().any(|ours| family == Some(ours.number()))
        && received
            .attributes(batch::HEADER)
            .get(api::TABLE_NAME)
            .map(text)
            .as_deref()
            == Some(TABLE)
}
