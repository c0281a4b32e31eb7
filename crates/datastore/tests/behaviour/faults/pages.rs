//! Lists whose past is compacted away between two of their pages.

use std::time::Duration;

use buoy_core::store::{Prefix, Record, Revision};
use buoy_datastore::Datastore;
use buoy_datastore::etcd::{Etcd, Options};

use super::limits::large;
use super::proxy::{Mode, Proxy};
use crate::server::Server;
use crate::tools::{create, delete, list, update, written};

/// Two pages of them, the second a short one.
const RECORDS: usize = 510;
const SIZE: usize = 2_000;
/// The first page is on its way, and far from complete.
const BEGUN: usize = 200_000;

/// How long a client has to wait for what is stalled.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a list said, and at which revision; and what was and is so.
pub(crate) struct Listed {
    before: Vec<Record>,
    records: Vec<Record>,
    pub(crate) at: Revision,
    now: Vec<Record>,
}

fn name(number: usize) -> String {
    format!("p{number:03}")
}

/// Lists behind the relay. While the first page is on its way records change in both pages, and `forget` makes the store
/// forget what was before.
pub(crate) fn listed_while_forgotten(
    direct: &dyn Datastore,
    (proxy, store): (&Proxy, &dyn Datastore),
    forget: impl FnOnce(),
) -> Listed {
    let write = |number| written(direct.run(&large(&name(number), SIZE)));
    let made: Vec<Revision> = (0..RECORDS).map(write).collect();
    let (before, _) = list(store, Prefix::Reservations);
    assert_eq!(before.len(), RECORDS);
    proxy.stall_after_hearing(BEGUN);
    let (records, at) = std::thread::scope(|scope| {
        let listing = scope.spawn(|| list(store, Prefix::Reservations));
        proxy.wait_for(Mode::Stall);
        for page in [0, RECORDS - 5] {
            update(direct, &name(page), 1, made[page]);
            delete(direct, &name(page + 1), made[page + 1]);
            create(direct, &format!("{}-new", name(page + 2)), 1);
        }
        forget();
        proxy.set(Mode::Pass);
        listing.join().unwrap()
    });
    Listed {
        before,
        records,
        at,
        now: list(direct, Prefix::Reservations).0,
    }
}

impl Listed {
    /// It is what was so at its revision: in no case a page from before and one from after.
    pub(crate) fn is_of_one_moment(&self) {
        let newest = |records: &[Record]| records.iter().map(|record| record.revision).max();
        let is_old = Some(self.at) < newest(&self.now);
        let expected = if is_old { &self.before } else { &self.now };
        assert_eq!(self.records, *expected, "at {}", self.at);
        assert!(Some(self.at) >= newest(expected), "{}", self.at);
    }

    /// Whether it was begun again.
    pub(crate) fn is_new(&self) -> bool {
        self.records == self.now
    }
}

#[test]
fn a_list_that_is_compacted_between_its_pages_begins_again() {
    let server = Server::start();
    let proxy = Proxy::to(server.address);
    let options = Options { timeout: PATIENCE };
    let store = Etcd::open(&proxy.url(), |_| None, options).unwrap();
    let listed = listed_while_forgotten(&*server.store(), (&proxy, &store), || server.compact());
    assert!(listed.is_new(), "at {}", listed.at);
    listed.is_of_one_moment();
}
