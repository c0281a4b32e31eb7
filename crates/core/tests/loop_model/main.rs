//! The loop on one node, as properties: what should be is a function of what is known; a plan brings the kernel there
//! from wherever it is; an address has one owner.
//!
//! A failing case prints its inputs, shrunk, and is kept by proptest to be run again first. `PROPTEST_CASES=N` runs N
//! cases of each.

#![expect(clippy::unwrap_used, reason = "a test stops at what cannot be")]

mod check;
mod inputs;
mod kernel;
mod node;
mod owners;
mod plans;
mod state;
mod store;
mod tasks;
mod universe;

use proptest::test_runner::{Config, FileFailurePersistence};

/// So many cases, unless `PROPTEST_CASES` says otherwise.
fn cases(count: u32) -> Config {
    let persistence = FileFailurePersistence::Direct("tests/loop_model/regressions.txt");
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(count);
    Config {
        cases,
        failure_persistence: Some(Box::new(persistence)),
        max_shrink_iters: 4096,
        ..Config::default()
    }
}
