//! Writing: one operation, one transaction on the revision that it was meant for.

use std::time::Instant;

use buoy_core::store::{Key, Reply, Revision, StoreError, StoreOp};
use etcd_client::{Compare, CompareOp, Txn, TxnOp};

use super::Shared;
use super::read::{Stored, revision};
use super::trouble::{Trouble, unavailable};
use crate::codec::{self, Change};
use crate::history::replaced;
use crate::moment::moment;

impl Shared {
    pub(super) fn write(&self, key: &Key, op: &StoreOp) -> Result<Reply, StoreError> {
        let path = codec::path(key).map_err(|bad| self.invalid(&bad.reason))?;
        let begun = Instant::now();
        loop {
            match self.threads.wait(self.write_once(&path, op))? {
                // A part is merged into whatever is there.
                Reply::Conflict if matches!(op, StoreOp::Apply(..)) && self.exists(&path)? => {}
                reply => return Ok(reply),
            }
            if begun.elapsed() >= self.options.timeout {
                let cause = unavailable(format!("the record keeps changing: {path}"));
                return Err(cause.of(&self.name));
            }
        }
    }

    fn exists(&self, path: &str) -> Result<bool, StoreError> {
        let stored = self.threads.wait(self.stored(path));
        Ok(stored.map_err(|trouble| self.error(trouble))?.is_some())
    }

    async fn write_once(&self, path: &str, op: &StoreOp) -> Result<Reply, StoreError> {
        let before = self
            .before(path, op)
            .await
            .map_err(|trouble| self.error(trouble))?;
        let before = before
            .as_ref()
            .map(|stored| (stored.bytes.as_slice(), stored.revision));
        let change =
            codec::change(op, before, moment).map_err(|bad| self.invalid(&format!("{path}: {bad}")))?;
        let at = before.map(|(_, revision)| revision);
        let reply = match change {
            Change::Nothing(revision) => return Ok(Reply::Written(revision)),
            Change::Conflict => return Ok(Reply::Conflict),
            Change::Put(bytes) => self.put(path, bytes, at).await,
            Change::Delete => self.delete(path, at).await,
        };
        match reply {
            Ok(reply) => Ok(reply),
            Err(Trouble::Lost(cause)) => {
                tracing::debug!(path, reason = cause.reason, "the answer to a write was lost");
                Ok(Reply::Unknown)
            }
            Err(trouble) => Err(self.error(trouble)),
        }
    }

    /// The record as it is stored, or what of it is needed: where the operation names a revision and nothing is kept of
    /// the bytes, the transaction alone finds out whether it is the right one.
    async fn before(&self, path: &str, op: &StoreOp) -> Result<Option<Stored>, Trouble> {
        match op {
            StoreOp::Create(..) => Ok(None),
            StoreOp::Update(_, _, revision) | StoreOp::Delete(_, revision)
                if *revision != Revision(0) && !codec::keeps_stored(op) =>
            {
                Ok(Some(Stored {
                    bytes: Vec::new(),
                    revision: *revision,
                }))
            }
            _ => self.stored(path).await,
        }
    }

    async fn put(&self, path: &str, bytes: Vec<u8>, at: Option<Revision>) -> Result<Reply, Trouble> {
        let written = self.transact(path, at, TxnOp::put(path, bytes, None)).await?;
        Ok(written.map_or(Reply::Conflict, Reply::Written))
    }

    async fn delete(&self, path: &str, at: Option<Revision>) -> Result<Reply, Trouble> {
        let deleted = self.transact(path, at, TxnOp::delete(path, None)).await?;
        Ok(deleted.map_or(Reply::Conflict, |_| Reply::Deleted))
    }

    /// Carries an operation out if the record has this revision, or does not exist; the revision of the write, or
    /// `None` if it is not so.
    async fn transact(
        &self,
        path: &str,
        at: Option<Revision>,
        op: TxnOp,
    ) -> Result<Option<Revision>, Trouble> {
        let expected = match at {
            Some(at) => Compare::mod_revision(path, CompareOp::Equal, at.0.cast_signed()),
            None => Compare::version(path, CompareOp::Equal, 0),
        };
        if !self.history.is_accepted() {
            return Err(Trouble::NotDone(replaced()));
        }
        let began = self.history.begin();
        let transaction = Txn::new().when([expected]).and_then([op]);
        let answer = self
            .members
            .order(async |mut member| member.kv.txn(transaction.clone()).await)
            .await?;
        self.heard(answer.header(), began);
        if !answer.succeeded() {
            return Ok(None);
        }
        let header = answer.header().map(|header| revision(header.revision()));
        let lost = || Trouble::Lost(unavailable("an answer without a header"));
        header.map(Some).ok_or_else(lost)
    }
}
