//! Lists whose past is compacted away between two of their pages.

use buoy_datastore::kubernetes::Options;

use super::backend::{ApiServerBackend, api_server, api_server_with, by_way_of, client};
use crate::faults::pages::{Listed, PATIENCE, listed_while_forgotten};
use crate::faults::proxy::Proxy;
use crate::tools::Backend;

/// Lists behind a relay. How often the client asked for a page, of which there are two.
fn listed(backend: &ApiServerBackend) -> (Listed, u64) {
    let proxy = Proxy::to(backend.server().address);
    let options = Options {
        timeout: PATIENCE,
        ..Options::default()
    };
    let store = client(&by_way_of(&proxy, &[backend]), options);
    let forget = || backend.server().compact().unwrap();
    let listed = listed_while_forgotten(&*backend.open(), (&proxy, &*store), forget);
    let asked = store
        .requests()
        .into_iter()
        .filter(|((verb, _), _)| *verb == "list");
    (listed, asked.map(|(_, count)| count).sum())
}

/// Such a server asks etcd for the second page, and says 410.
#[test]
fn a_list_that_is_compacted_between_its_pages_begins_again() {
    let backend = api_server_with(&["--feature-gates=ListFromCacheSnapshot=false"]);
    let (listed, asked) = listed(&backend);
    println!("{asked} pages were asked for");
    assert!(listed.is_new(), "at {}", listed.at);
    listed.is_of_one_moment();
    // Once before; once up to the page that is gone; and again.
    assert!(asked >= 6, "{asked} pages only");
}

/// As it comes, a server has the second page in its own memory for a while.
#[test]
fn a_list_that_goes_on_after_a_compaction_is_of_one_moment() {
    let backend = api_server();
    let (listed, asked) = listed(&backend);
    println!("{asked} pages were asked for; begun again: {}", listed.is_new());
    listed.is_of_one_moment();
}
