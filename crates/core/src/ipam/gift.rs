//! The writes by which addresses are given, and taken back where not all could be given.

use std::collections::BTreeMap;
use std::net::IpAddr;

use buoy_api::ipam::{Block, Handle};
use ipnet::IpNet;

use super::access::At;
use super::error::IpamError;
use super::handle::{self, Counts};
use super::protocol::Store;
use super::release::{What, settle};

/// What a protocol has given so far, in case it must take it back.
#[derive(Default)]
pub(super) struct Gift {
    /// Addresses with the sequence numbers they are given with, also where the answer was lost.
    given: Vec<(IpAddr, u64)>,
    /// Blocks as they were written last.
    pub(super) written: BTreeMap<IpNet, At<Block>>,
}

impl Gift {
    /// Writes the handle, then the block from which `addresses` were given. `None`: read again.
    pub(super) async fn write(
        &mut self,
        store: &mut Store,
        id: &str,
        known: &mut Option<At<Handle>>,
        image: At<Block>,
        addresses: &[IpAddr],
    ) -> Result<Option<()>, IpamError> {
        let counts = Counts::from([(image.record.cidr, handle::count_in(&image.record, id))]);
        match self.raise(store, id, known, &counts).await? {
            Some(()) => self.write_block(store, image, addresses).await,
            None => Ok(None),
        }
    }

    /// Makes the handle count what is going to be given. `None`: read again.
    pub(super) async fn raise(
        &mut self,
        store: &mut Store,
        id: &str,
        known: &mut Option<At<Handle>>,
        counts: &Counts,
    ) -> Result<Option<()>, IpamError> {
        let raised = handle::raise(store, id, known.as_ref(), counts).await?;
        Ok(raised.map(|raised| *known = Some(raised)))
    }

    /// Writes a block whose handle was raised. `None`: read again.
    pub(super) async fn write_block(
        &mut self,
        store: &mut Store,
        image: At<Block>,
        addresses: &[IpAddr],
    ) -> Result<Option<()>, IpamError> {
        let stamp = image.record.sequence_number;
        self.given
            .extend(addresses.iter().map(|address| (*address, stamp)));
        let written = store.update_block(image).await?;
        Ok(written.map(|written| {
            self.written.insert(written.record.cidr, written);
        }))
    }

    /// Writes a block unchanged, unless it was written already. `false`: read again.
    pub(super) async fn keep(&mut self, store: &mut Store, found: At<Block>) -> Result<bool, IpamError> {
        if self.written.contains_key(&found.record.cidr) {
            return Ok(true);
        }
        Ok(self.write_block(store, found, &[]).await?.is_some())
    }

    /// Takes back what was given, and corrects what an earlier crash left in the handle. Where the store fails, the
    /// handle finds it.
    pub(super) async fn undo(&self, store: &mut Store, id: &str, error: &IpamError) {
        if !matches!(error, IpamError::Store(_)) {
            store.setbacks = 0;
            let _ = settle(store, id, What::Own(&self.given)).await;
        }
    }
}
