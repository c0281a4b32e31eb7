//! nftables: the tables `ip buoy` and `ip6 buoy`.
//!
//! Tables, chains and sets as a whole go by text through `nft -f -` ([`load`]). Elements go over a netlink socket that
//! stays open ([`Nft`]): a change takes the kernel 0.05 ms, but closing a netlink socket through which something
//! was deleted waits for an RCU grace period, 5 to 20 ms, which a process per change would pay each time.

mod batch;
mod dump;
mod element;
mod events;
mod inspect;
mod ruleset;
mod template;

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;

use self::{
    batch::{Batch, message},
    element::Raw,
};
pub use self::{
    dump::Dump,
    element::{Element, Transaction},
    events::{TableEvent, TableEvents},
    inspect::Skeleton,
    ruleset::{Loaded, load},
};
use crate::{
    Family,
    error::{Doing, Error, Result},
    netlink::{
        Failure, Protocol, Socket,
        wire::{Received, big_endian, text},
    },
};

/// Name of the table, one per family.
pub const TABLE: &str = "buoy";

/// Message types, and the attributes used here (`include/uapi/linux/netfilter/nf_tables.h`).
mod api {
    pub(super) const GET_TABLE: u16 = 1;
    pub(super) const DELETE_TABLE: u16 = 2;
    pub(super) const NEW_CHAIN: u16 = 3;
    pub(super) const GET_CHAIN: u16 = 4;
    pub(super) const GET_RULE: u16 = 7;
    pub(super) const NEW_SET_ELEMENT: u16 = 12;
    pub(super) const GET_SET_ELEMENT: u16 = 13;
    pub(super) const DELETE_SET_ELEMENT: u16 = 14;
    pub(super) const NEW_GENERATION: u16 = 15;
    pub(super) const NEW_OBJECT: u16 = 18;
    pub(super) const GET_OBJECT: u16 = 19;
    /// Since 6.3; does not mind absence.
    pub(super) const DESTROY_SET_ELEMENT: u16 = 30;

    /// In every message that names a table.
    pub(super) const TABLE_NAME: u16 = 1;
    pub(super) const TABLE_FLAGS: u16 = 2;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const CHAIN_POLICY: u16 = 5;
    pub(super) const CHAIN_TYPE: u16 = 7;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_PRIORITY: u16 = 2;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const RULE_EXPRESSIONS: u16 = 4;
    pub(super) const LIST_SET: u16 = 2;
    pub(super) const LIST_ELEMENTS: u16 = 3;
    pub(super) const LIST_ELEMENT: u16 = 1;
    pub(super) const ELEMENT_KEY: u16 = 1;
    pub(super) const ELEMENT_DATA: u16 = 2;
    pub(super) const ELEMENT_TIMEOUT: u16 = 4;
    pub(super) const ELEMENT_EXPIRATION: u16 = 5;
    pub(super) const ELEMENT_KEY_END: u16 = 10;
    pub(super) const DATA_VALUE: u16 = 1;
    pub(super) const OBJECT_NAME: u16 = 2;
    pub(super) const OBJECT_DATA: u16 = 4;
    pub(super) const COUNTER_BYTES: u16 = 1;
    pub(super) const COUNTER_PACKETS: u16 = 2;
}

/// A named counter of the ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counter {
    /// Packets counted.
    pub packets: u64,
    /// Their octets.
    pub bytes: u64,
}

/// The open connection to nftables. It stays open for as long as the agent runs.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
    deletion: Deletion,
}

/// How elements are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deletion {
    /// Absence is no error.
    Destroy,
    /// Absence is an error: all that a kernel before 6.3 has.
    Delete,
}

impl Nft {
    /// Opens it in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn open() -> Result<Self> {
        Ok(Self {
            socket: Socket::open(Protocol::Netfilter)?,
            deletion: Deletion::Destroy,
        })
    }

    /// As [`Self::open`], as if the kernel were older than 6.3.
    ///
    /// # Errors
    /// As [`Self::open`].
    #[doc(hidden)]
    pub fn open_without_destroy() -> Result<Self> {
        Ok(Self {
            deletion: Deletion::Delete,
            ..Self::open()?
        })
    }

    /// Port by which [`TableEvents`] knows changes made through this connection.
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Deletes and adds elements, all or nothing, in one transaction of the kernel.
    ///
    /// Adding what is there and deleting what is gone succeeds. A map's value is changed by deleting the
    /// old element and adding the new one in one transaction; packets see one or the other.
    ///
    /// # Errors
    /// [`Error::Changed`] when the ruleset is not as the caller believes: the tables are gone, or an address is
    /// translated to something else. [`Error::Invalid`] when an element mixes families.
    pub fn apply(&mut self, transaction: &Transaction) -> Result<()> {
        let raw = transaction.raw()?;
        if raw.is_empty() {
            return Ok(());
        }
        let attempt = self.send(&raw.batch(self.deletion));
        match attempt {
            // A kernel before 6.3 does not know the message.
            Err(failure)
                if failure.errno() == Some(Errno::EINVAL)
                    && self.deletion == Deletion::Destroy
                    && raw.deletes() =>
            {
                let again = self.send(&raw.batch(Deletion::Delete));
                if again.is_ok() {
                    self.deletion = Deletion::Delete;
                }
                again.map_err(|failure| refused(transaction, failure))
            }
            outcome => outcome.map_err(|failure| refused(transaction, failure)),
        }
    }

    /// Everything the sets and maps hold.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when the tables are not there.
    pub fn dump(&mut self) -> Result<Dump> {
        let mut parts: BTreeSet<Raw> = BTreeSet::new();
        for family in Family::BOTH {
            for set in element::Set::ALL {
                parts.append(&mut dump::read_set(&mut self.socket, family, set)?);
            }
        }
        Ok(Dump::assemble(parts))
    }

    /// Whether the tables are there, of which version, and with the rules that were loaded. Takes much less than 1 ms.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn skeleton(&mut self) -> Result<Skeleton> {
        inspect::inspect(&mut self.socket)
    }

    /// All named counters.
    ///
    /// # Errors
    /// When the kernel refuses. Absent tables have no counters, which is no error.
    pub fn counters(&mut self) -> Result<BTreeMap<(Family, String), Counter>> {
        let mut counters = BTreeMap::new();
        for family in Family::BOTH {
            let request = message(api::GET_OBJECT, 0, family).text(api::TABLE_NAME, TABLE);
            let found = match self.socket.dump(request, read_counter) {
                Err(failure) if failure.errno() == Some(Errno::ENOENT) => Vec::new(),
                outcome => outcome.doing(|| format!("read the counters of table {TABLE}"))?,
            };
            counters.extend(found.into_iter().map(|(name, counter)| ((family, name), counter)));
        }
        Ok(counters)
    }

    /// Deletes both tables with all they hold. That they are gone is success.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_tables(&mut self) -> Result<()> {
        for family in Family::BOTH {
            let mut batch = Batch::default();
            batch.push(message(api::DELETE_TABLE, 0, family).text(api::TABLE_NAME, TABLE));
            match self.send(&batch) {
                Err(failure) if failure.errno() == Some(Errno::ENOENT) => {}
                outcome => outcome.doing(|| format!("delete table {TABLE}"))?,
            }
        }
        Ok(())
    }

    fn send(&mut self, batch: &Batch) -> Result<(), Failure> {
        batch.commit(&mut self.socket)
    }
}

/// Tells a ruleset that is not as believed from other refusals.
fn refused(transaction: &Transaction, failure: Failure) -> Error {
    let doing = format!(
        "add {} and delete {} elements",
        transaction.add.len(),
        transaction.del.len()
    );
    match failure.errno() {
        Some(Errno::ENOENT | Errno::EEXIST | Errno::ERESTART) => Error::Changed { doing, failure },
        _ => Error::Netlink { doing, failure },
    }
}

fn read_counter(received: &Received<'_>) -> Option<(String, Counter)> {
    if received.kind & 0xff != api::NEW_OBJECT {
        return None;
    }
    let attributes = received.attributes(batch::HEADER);
    let data = attributes.inside(api::OBJECT_DATA);
    let packets = big_endian(data.get(api::COUNTER_PACKETS)?)?;
    let bytes = big_endian(data.get(api::COUNTER_BYTES)?)?;
    Some((
        text(attributes.get(api::OBJECT_NAME)?),
        Counter { packets, bytes },
    ))
}
