//! nftables messages, and the batch that makes several of them one transaction.

use netlink_packet_core::NLM_F_ACK;

use crate::{
    Family,
    netlink::{
        Failure, Socket, outcome,
        wire::{self, Message, Messages},
    },
};

/// `NFNL_SUBSYS_NFTABLES`, in the upper octet of a message's type.
const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BEGIN: u16 = 16;
const END: u16 = 17;
/// Length of `struct nfgenmsg`.
pub(super) const HEADER: usize = 4;

/// Begins a message about a table of this family.
pub(super) fn message(kind: u16, flags: u16, family: Family) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags).raw(&[family.number(), 0, 0, 0])
}

/// Message type without the subsystem, if it is of nftables.
pub(super) fn kind_of(kind: u16) -> Option<u16> {
    (kind >> 8 == SUBSYSTEM).then_some(kind & 0xff)
}

/// Messages that take effect together or not at all.
#[derive(Debug, Default)]
pub(super) struct Batch(Vec<Message>);

impl Batch {
    pub(super) fn push(&mut self, message: Message) {
        self.0.push(message);
    }

    /// Length of each message in octets.
    #[cfg(test)]
    pub(super) fn lengths(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(Message::len)
    }

    /// Sends it and waits for the outcome; the first refusal is the failure.
    ///
    /// The kernel reads a transaction from one send and has answered when the send returns.
    pub(super) fn commit(&self, socket: &mut Socket) -> Result<(), Failure> {
        let Some((last, others)) = self.0.split_last() else {
            return Ok(());
        };
        let mut last = last.clone();
        last.add_flags(NLM_F_ACK);
        let frame = |kind| Message::new(kind, 0).raw(&[0, 0, 0, SUBSYSTEM as u8]);
        let mut all = Vec::with_capacity(self.0.len() + 2);
        all.push(frame(BEGIN));
        all.extend_from_slice(others);
        all.push(last);
        all.push(frame(END));
        let first = socket.send(&all)?;
        let acknowledged = first.wrapping_add(all.len() as u32 - 2);
        let mut done = false;
        while let Some(datagram) = socket.receive_now()? {
            for received in Messages(datagram).filter(|received| received.kind == wire::ERROR) {
                if received.sequence.wrapping_sub(first) < all.len() as u32 {
                    outcome(&received)?;
                    done |= received.sequence == acknowledged;
                }
            }
        }
        if done { Ok(()) } else { Err(Failure::Timeout) }
    }
}
