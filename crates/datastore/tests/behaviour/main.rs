//! How every datastore behaves, and what is special to one. The behaviours are functions that take a
//! [`Backend`](tools::Backend): a new backend needs one more call of the macro.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test ends where it cannot go on, and shows what it measured"
)]

mod embedded;
mod faults;
mod follows;
mod kubernetes;
mod neighbours;
mod oddities;
mod races;
mod records;
mod server;
mod sizes;
mod tools;
mod watches;

use std::sync::Arc;

use buoy_datastore::Datastore;
use buoy_datastore::sqlite::{Options, Sqlite};

use kubernetes::api_server;
use serde_json::Value as Json;
use server::Server;
use tools::{Backend, Bytes, Ipam, Raw};

macro_rules! tests_of {
    ($module:ident of $backend:ident: $($group:ident { $($test:ident),* $(,)? })*) => {
        mod $module {
            $($(
                #[test]
                fn $test() {
                    super::$group::$test(&super::$backend());
                }
            )*)*
        }
    };
}

macro_rules! behaves {
    ($backend:ident) => {
        tests_of! {
            $backend of $backend:
            records {
                a_write_needs_the_state_it_was_meant_for,
                revisions_rise_through_the_whole_store,
                a_list_has_its_prefix_in_order,
                a_list_is_one_moment,
                ten_thousand_records_are_listed,
                what_does_not_decode_hides_nothing_and_can_be_replaced,
                spec_and_status_do_not_touch_each_other,
                what_cannot_be_kept_is_refused,
            }
            sizes {
                a_record_at_the_limit_is_kept_and_one_above_it_is_refused,
            }
            races {
                two_writers_lose_no_step_of_one_counter,
                one_of_many_creators_wins,
                parts_of_many_writers_merge,
            }
            watches {
                a_watch_gives_what_its_interest_covers_in_order,
                each_prefix_begins_where_it_is_known,
                a_watch_resumes_anywhere_without_loss_or_repetition,
                a_watch_wakes_at_once,
                a_quiet_watch_tells_how_far_it_is,
                a_slow_watcher_gets_everything_in_bounded_bites,
                a_watch_from_before_the_compaction_is_told_so,
                a_watch_from_the_future_is_told_so,
            }
            neighbours {
                writers_of_two_kinds_share_a_prefix,
                what_is_leaked_is_collected,
                a_handle_is_collected_as_a_whole,
                leaks_are_collected_in_batches,
                nothing_of_ours_is_collected,
                cold_addresses_are_freed,
                blocks_that_stay_empty_are_given_up,
            }
            oddities {
                pools_that_overlap_give_no_address_twice,
                a_block_outside_of_every_pool_gives_nothing_and_is_released,
                an_affinity_without_its_block_is_made_whole_or_given_up,
                a_block_whose_name_does_not_fit_gives_nothing,
                a_malformed_block_is_said_and_gives_nothing,
                a_malformed_affinity_is_said_and_hides_no_other,
                a_malformed_handle_is_said_and_gets_nothing,
            }
            follows {
                a_follower_gets_everything_and_then_every_change,
                after_a_compaction_only_the_difference_comes,
                a_store_that_fails_takes_nothing_back,
                a_follower_stops_when_told,
            }
        }
    };
}

/// Stores that keep bytes under paths, in which anything can be put there.
macro_rules! keeps_bytes {
    ($module:ident of $backend:ident) => {
        tests_of! {
            $module of $backend:
            oddities {
                a_binding_whose_name_does_not_fit_is_said_and_hides_no_other,
            }
        }
    };
}

behaves!(sqlite);
behaves!(etcd);
behaves!(api_server);
keeps_bytes!(sqlite_bytes of sqlite);
keeps_bytes!(etcd_bytes of etcd);

/// Where the records that the tests write are, in stores that keep bytes.
const RESERVATIONS: &str = "/calico/resources/v3/projectcalico.org/ipreservations";

/// An embedded store in a directory of its own.
struct SqliteBackend {
    directory: tempfile::TempDir,
}

fn sqlite() -> SqliteBackend {
    SqliteBackend {
        directory: tempfile::tempdir().unwrap(),
    }
}

impl SqliteBackend {
    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("buoy.db")
    }

    fn raw(&self) -> rusqlite::Connection {
        self.open();
        rusqlite::Connection::open(self.path()).unwrap()
    }
}

impl Backend for SqliteBackend {
    fn open(&self) -> Arc<dyn Datastore> {
        let options = Options {
            keep: 1_000_000,
            ..Options::default()
        };
        Arc::new(Sqlite::open(&self.path(), options).unwrap())
    }

    fn put_bad(&self) -> &'static str {
        self.put_bytes(&format!("{RESERVATIONS}/b"), b"{\"kind\": \xff");
        self.put_bytes(&format!("{RESERVATIONS}/b/not-a-reservation"), b"{}");
        "not JSON"
    }

    fn compact(&self) {
        self.raw()
            .execute(
                "DELETE FROM log WHERE revision < (SELECT max(revision) FROM log)",
                [],
            )
            .unwrap();
    }
}

impl Raw for SqliteBackend {
    fn put_raw(&self, what: &Ipam<'_>, record: &Json) {
        self.put_bytes(&what.path(), record.to_string().as_bytes());
    }
}

impl Bytes for SqliteBackend {
    fn put_bytes(&self, path: &str, bytes: &[u8]) {
        let mut raw = self.raw();
        let transaction = raw.transaction().unwrap();
        transaction
            .execute(
                "INSERT INTO log (revision, key, value) SELECT max(revision) + 1, ?1, ?2 FROM log",
                rusqlite::params![path, bytes],
            )
            .unwrap();
        transaction
            .execute(
                "REPLACE INTO kv (key, value, created, modified) SELECT ?1, ?2, max(revision), max(revision) FROM log",
                rusqlite::params![path, bytes],
            )
            .unwrap();
        transaction.commit().unwrap();
    }
}

/// An etcd of one member.
struct EtcdBackend {
    server: Server,
}

fn etcd() -> EtcdBackend {
    EtcdBackend {
        server: Server::start(),
    }
}

impl Backend for EtcdBackend {
    fn open(&self) -> Arc<dyn Datastore> {
        self.server.store()
    }

    fn put_bad(&self) -> &'static str {
        self.put_bytes(&format!("{RESERVATIONS}/b"), b"{\"kind\": \xff");
        self.put_bytes(&format!("{RESERVATIONS}/b/not-a-reservation"), b"{}");
        "not JSON"
    }

    fn compact(&self) {
        self.server.compact();
    }
}

impl Raw for EtcdBackend {
    fn put_raw(&self, what: &Ipam<'_>, record: &Json) {
        self.put_bytes(&what.path(), record.to_string().as_bytes());
    }
}

impl Bytes for EtcdBackend {
    fn put_bytes(&self, path: &str, bytes: &[u8]) {
        self.server.put(path, bytes);
    }
}
