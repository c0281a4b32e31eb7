//! Reading one record, and a set of them at one revision.

use buoy_core::store::{Key, Prefix, Record, Reply, Revision, StoreError};
use etcd_client::{GetOptions, GetResponse, KeyValue};

use super::Shared;
use super::trouble::{Trouble, unavailable};
use crate::codec::{self, Range};

/// Records in a page, unless they are so large that fewer must do.
const PAGE: i64 = 500;
/// How often a list begins anew because its revision was compacted in between.
const LISTS: u32 = 3;

/// A record as etcd has it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub bytes: Vec<u8>,
    pub revision: Revision,
}

impl Shared {
    pub(super) fn get(&self, key: &Key) -> Result<Reply, StoreError> {
        let path = codec::path(key).map_err(|bad| self.invalid(&bad.reason))?;
        let found = self
            .threads
            .wait(self.stored(&path))
            .map_err(|trouble| self.error(trouble))?;
        let found = found.map(|Stored { bytes, revision }| codec::record(key.clone(), &bytes, revision));
        Ok(Reply::Record(found))
    }

    /// Bytes and revision of the record at a path, as the quorum knows them.
    pub(super) async fn stored(&self, path: &str) -> Result<Option<Stored>, Trouble> {
        let answer = self.ask(path, None).await?;
        let Some(found) = answer.kvs().first() else {
            return Ok(None);
        };
        Ok(Some(Stored {
            bytes: found.value().to_vec(),
            revision: revision(found.mod_revision()),
        }))
    }

    /// Fails as compacted if the store does not have this revision: no longer, or not yet. Asks for a path that this
    /// client may read.
    pub(super) async fn has(&self, revision: Revision, path: &str) -> Result<(), Trouble> {
        let options = GetOptions::new()
            .with_count_only()
            .with_revision(revision.0.cast_signed());
        self.ask(path, Some(options)).await.map(|_| ())
    }

    async fn ask(
        &self,
        from: impl Into<Vec<u8>>,
        options: Option<GetOptions>,
    ) -> Result<GetResponse, Trouble> {
        let (from, began) = (from.into(), self.history.begin());
        let answer = self
            .members
            .ask(async |mut member| member.kv.get(from.clone(), options.clone()).await)
            .await?;
        self.heard(answer.header(), began);
        Ok(answer)
    }

    pub(super) fn list(&self, prefix: &Prefix) -> Result<Reply, StoreError> {
        let ranges = codec::ranges(prefix).map_err(|bad| self.invalid(&bad.reason))?;
        let mut listed = Err(Trouble::Compacted);
        for _ in 0..LISTS {
            listed = self.threads.wait(self.list_once(&ranges));
            if !matches!(listed, Err(Trouble::Compacted)) {
                break;
            }
        }
        let (mut records, revision) = listed.map_err(|trouble| self.error(trouble))?;
        // Paths sort as text, keys as what they mean.
        records.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Reply::List(records, revision))
    }

    async fn list_once(&self, ranges: &[Range]) -> Result<(Vec<Record>, Revision), Trouble> {
        let mut pages = Pages {
            size: PAGE,
            at: None,
            records: Vec::new(),
        };
        for range in ranges {
            let mut start = Some(range.start.clone().into_bytes());
            while let Some(from) = start {
                start = self.page(&mut pages, from, &range.end).await?;
            }
        }
        Ok((pages.records, pages.at.unwrap_or_default()))
    }

    /// Takes in one page, and says where the next begins.
    async fn page(&self, pages: &mut Pages, from: Vec<u8>, end: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let options = pages.options(end);
        let page = match self.ask(from.clone(), Some(options)).await {
            Err(Trouble::TooLarge) if pages.size > 1 => {
                pages.size /= 4;
                pages.size = pages.size.max(1);
                return Ok(Some(from));
            }
            page => page?,
        };
        // The first page says of which moment all the others must be.
        pages.at.get_or_insert(at(&page)?);
        pages.records.extend(page.kvs().iter().filter_map(record));
        let next = page.kvs().last().filter(|_| page.more());
        Ok(next.map(|last| [last.key(), b"\0"].concat()))
    }
}

/// A list that is being read.
struct Pages {
    size: i64,
    at: Option<Revision>,
    records: Vec<Record>,
}

impl Pages {
    fn options(&self, end: &str) -> GetOptions {
        let options = GetOptions::new().with_range(end).with_limit(self.size);
        match self.at {
            Some(at) => options.with_revision(at.0.cast_signed()),
            None => options,
        }
    }
}

fn at(answer: &GetResponse) -> Result<Revision, Trouble> {
    let header = answer.header().map(|header| revision(header.revision()));
    header.ok_or_else(|| Trouble::Lost(unavailable("an answer without a header")))
}

fn record(found: &KeyValue) -> Option<Record> {
    let key = known_key(found.key())?;
    Some(codec::record(key, found.value(), revision(found.mod_revision())))
}

/// The key at a path. Calico keeps a few records that this project has no use for.
pub(super) fn known_key(path: &[u8]) -> Option<Key> {
    codec::known_key(std::str::from_utf8(path).unwrap_or_default())
}

pub(super) fn revision(number: i64) -> Revision {
    Revision(number.cast_unsigned())
}
