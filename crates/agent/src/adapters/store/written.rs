//! Blocks as a thread wrote them last: newer than what the view has seen, until the view has caught up.

use std::collections::BTreeMap;

use buoy_core::store::{Key, Record};

/// What a thread wrote into one and the same datastore. After a restore its revisions mean something else.
#[derive(Debug, Default)]
pub(super) struct Written {
    blocks: BTreeMap<Key, Record>,
    restores: u64,
}

impl Written {
    /// Takes in what was written by a job of the time after so many restores.
    pub(super) fn remember(&mut self, written: Vec<Record>, restores: u64) {
        self.look_for_a_restore(restores);
        self.blocks
            .extend(written.into_iter().map(|record| (record.key.clone(), record)));
    }

    /// The newer of each block: as the view has it after so many restores, or as it was written since.
    pub(super) fn freshest(&mut self, cached: Vec<Record>, restores: u64) -> Vec<Record> {
        self.look_for_a_restore(restores);
        let newer = |record: Record| match self.blocks.get(&record.key) {
            Some(written) if written.revision > record.revision => written.clone(),
            Some(_) => {
                self.blocks.remove(&record.key);
                record
            }
            None => record,
        };
        cached.into_iter().map(newer).collect()
    }

    fn look_for_a_restore(&mut self, restores: u64) {
        if self.restores != restores {
            self.blocks.clear();
            self.restores = restores;
        }
    }
}

#[cfg(test)]
mod tests {
    use buoy_core::store::{Bad, Revision};

    use super::*;

    fn block(revision: u64) -> Record {
        Record {
            key: Key::Block("10.65.0.0/26".parse().unwrap()),
            revision: Revision(revision),
            value: Err(Bad {
                reason: "of no interest here".to_owned(),
            }),
        }
    }

    fn revision(written: &mut Written, cached: u64, restores: u64) -> u64 {
        written.freshest(vec![block(cached)], restores)[0].revision.0
    }

    #[test]
    fn what_was_written_counts_until_the_view_has_it() {
        let mut written = Written::default();
        written.remember(vec![block(7)], 0);
        assert_eq!(revision(&mut written, 5, 0), 7);
        assert_eq!(revision(&mut written, 8, 0), 8);
        assert_eq!(revision(&mut written, 6, 0), 6, "it was forgotten");
    }

    #[test]
    fn what_was_written_before_a_restore_says_nothing() {
        let mut written = Written::default();
        written.remember(vec![block(900)], 0);
        assert_eq!(revision(&mut written, 5, 1), 5);
        written.remember(vec![block(6)], 1);
        assert_eq!(revision(&mut written, 5, 1), 6);
    }
}
