//! Many hosts give and take addresses in one small cluster, in random interleavings, with crashes between any two
//! operations and answers that are lost; after every operation the invariants of IPAM are checked.
//!
//! `BUOY_MODEL_SCHEDULES=N` runs N schedules instead of 100,000; `BUOY_MODEL_SEED=S` runs the one with this seed and
//! tells every operation of it.

#![expect(
    clippy::unwrap_used,
    reason = "what cannot fail in a simulated cluster is a bug of the test"
)]

mod ipam_sim;

use ipam_sim::run::{CALM, DEADLY, Flaw, LATE, LOSSY, Weather, schedule, story};

const SCHEDULES: u64 = 100_000;

/// Two tests share the schedules, so that two threads do.
fn share() -> u64 {
    let all = std::env::var("BUOY_MODEL_SCHEDULES")
        .ok()
        .and_then(|text| text.parse().ok());
    all.unwrap_or(SCHEDULES) / 2
}

fn run(weathers: [Weather; 2]) {
    if let Some(seed) = std::env::var("BUOY_MODEL_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
    {
        let weather = weathers[(seed % 2) as usize];
        eprintln!("{}", story(seed, weather, Flaw::None));
        schedule(seed, weather, Flaw::None).unwrap_or_else(|reason| panic!("seed={seed}: {reason}"));
        return;
    }
    for seed in 0..share() {
        let weather = weathers[(seed % 2) as usize];
        if let Err(reason) = schedule(seed, weather, Flaw::None) {
            let story = story(seed, weather, Flaw::None);
            panic!("{story}\nseed={seed}: {reason}\nrun it again with BUOY_MODEL_SEED={seed}");
        }
    }
}

#[test]
fn i1_no_interleaving_gives_an_address_twice() {
    run([CALM, LOSSY]);
}

#[test]
fn i2_whatever_a_crash_leaves_is_found_by_its_handle_and_nothing_live_is_freed() {
    run([DEADLY, LATE]);
}

/// A broken rule is noticed, and for what it breaks: some schedule ends with these words.
fn notices(flaw: Flaw, words: &str) {
    let weather = |seed: u64| [CALM, LOSSY, DEADLY, LATE][(seed % 4) as usize];
    let mut ends = (0..20_000).filter_map(|seed| schedule(seed, weather(seed), flaw).err());
    assert!(
        ends.any(|reason| reason.contains(words)),
        "the model does not notice {flaw:?}"
    );
}

#[test]
fn i1_the_model_notices_a_block_that_is_written_whatever_its_revision() {
    notices(Flaw::BlockIgnoresRevision, " lives with ");
}

#[test]
fn i2_the_model_notices_a_release_by_bare_address() {
    notices(Flaw::ReleaseByBareAddress, " lives with ");
}

#[test]
fn i2_the_model_notices_a_handle_that_is_not_written_first() {
    notices(Flaw::HandleIsNotWritten, "which counts None");
}

#[test]
fn i2_the_model_notices_a_handle_that_is_deleted_whatever_its_revision() {
    notices(Flaw::HandleIgnoresRevision, "which counts None");
}

#[test]
fn i2_the_model_notices_a_release_that_leaves_blocks_without_its_addresses_alone() {
    notices(Flaw::ReleaseWritesNoEmptyBlock, "which counts None");
}
