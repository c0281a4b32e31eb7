//! I3 across nodes: a binding has one owner per epoch, epochs rise, and at any instant at most one agent is confirmed for
//! an address; in the end every address that somebody can have is somebody's.
//!
//! A few nodes own, offer, claim and take addresses in one small cluster, with the agent's own rules of work, while links,
//! clocks, processes and machines fail in random interleavings; after every step the invariants are checked.
//!
//! `BUOY_MODEL_SCHEDULES=N` runs N schedules instead of 3,000; `BUOY_MODEL_SEED=S` runs the one with this seed and tells
//! every step of it.

#![expect(
    clippy::unwrap_used,
    reason = "what cannot fail in a simulated cluster is a bug of the test"
)]

mod owner_sim;

use std::collections::BTreeMap;

use owner_sim::run::{Flaw, Watch, events, restored, schedule, story};

const SCHEDULES: u64 = 3_000;
const RESTORES: u64 = 400;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Two tests share the schedules, so that two threads do.
fn run(which: u64) {
    if let Some(seed) = variable("BUOY_MODEL_SEED") {
        if seed % 2 == which {
            eprintln!("{}", story(seed));
            schedule(seed, Flaw::None, Watch::All).unwrap_or_else(|reason| panic!("seed={seed}: {reason}"));
        }
        return;
    }
    let schedules = variable("BUOY_MODEL_SCHEDULES").unwrap_or(SCHEDULES);
    for seed in (0..schedules).filter(|seed| seed % 2 == which) {
        if let Err(reason) = schedule(seed, Flaw::None, Watch::All) {
            panic!("seed={seed}: {reason}\nrun it again with BUOY_MODEL_SEED={seed}");
        }
    }
}

#[test]
fn i3_at_most_one_is_confirmed_whatever_fails() {
    run(1);
}

#[test]
fn i3_at_most_one_is_confirmed_whatever_is_late() {
    run(0);
}

#[test]
fn a_seed_tells_the_same_story_again() {
    let mut before = String::new();
    for seed in 0..8 {
        let told = story(seed);
        assert!(told.lines().count() > 20, "seed={seed}: little happens:\n{told}");
        assert_eq!(told, story(seed), "seed={seed}");
        assert_ne!(told, before, "seed={seed}: the story of the one before");
        before = told;
    }
}

#[test]
fn everything_that_can_happen_to_an_address_happens() {
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for (event, count) in (0..400).flat_map(events) {
        *all.entry(event).or_default() += count;
    }
    let expected = [
        "claimed",
        "collected",
        "deleted",
        "offer returned",
        "offer taken",
        "offered",
        "passed on",
        "released",
        "revoked",
        "stamped anew",
        "taken by force",
    ];
    for event in expected {
        let count = all.get(event).copied().unwrap_or_default();
        assert!(count >= 20, "{event}: {count} times, of {all:?}");
    }
}

/// Some schedule of a cluster with a broken rule ends with these words.
fn ends(flaw: Flaw, watch: Watch, words: &str) -> bool {
    let mut ends = (0..SCHEDULES).filter_map(|seed| schedule(seed, flaw, watch).err());
    ends.any(|reason| reason.contains(words))
}

/// A broken rule is noticed, and for what it breaks.
fn notices(flaw: Flaw, words: &str) {
    assert!(
        ends(flaw, Watch::All, words),
        "the model does not notice {flaw:?}"
    );
}

/// A rule is needed: without it two agents are confirmed at once.
fn is_needed(flaw: Flaw) {
    let two = ends(flaw, Watch::ConfirmedAlone, "two are confirmed");
    assert!(two, "nobody is harmed by {flaw:?}");
}

#[test]
fn i3_the_model_notices_a_claim_without_a_revocation() {
    notices(Flaw::ClaimWithoutRevoking, "written over while its lease stood");
    is_needed(Flaw::ClaimWithoutRevoking);
}

#[test]
fn i3_the_model_notices_a_revocation_before_its_time() {
    notices(Flaw::RevokesAtOnce, "revoked while its lease was live");
    is_needed(Flaw::RevokesAtOnce);
}

#[test]
fn i3_the_model_notices_a_revocation_after_an_outage() {
    notices(Flaw::GapsCount, "without contact all the time");
}

#[test]
fn the_model_notices_a_revocation_by_who_may_have_been_unable_to_write() {
    notices(Flaw::RevokesUnproven, "lives and");
}

#[test]
fn the_model_notices_a_count_that_goes_on_while_nobody_can_write() {
    notices(Flaw::OutagesCount, "lives and");
}

#[test]
fn i3_the_model_notices_an_owner_who_takes_for_another_node() {
    notices(Flaw::OwnerIsWrittenForOthers, "written by somebody else");
}

#[test]
fn i3_the_model_notices_who_relies_on_what_it_gives_away() {
    notices(Flaw::ConfirmedWhileGiving, "is confirmed and not the owner");
    is_needed(Flaw::ConfirmedWhileGiving);
}

#[test]
fn i3_the_model_notices_a_renewal_whatever_the_revision() {
    notices(Flaw::RenewalIgnoresRevision, "the term of");
    is_needed(Flaw::RenewalIgnoresRevision);
}

#[test]
fn i3_the_model_notices_a_claim_whatever_the_binding_has_become() {
    notices(Flaw::ClaimComparesNothing, "written over while its lease stood");
    is_needed(Flaw::ClaimComparesNothing);
}

#[test]
fn i3_a_restored_store_takes_nothing_from_anybody() {
    for seed in 0..RESTORES {
        if let Err(reason) = restored(seed, Flaw::None) {
            panic!("seed={seed}: {reason}");
        }
    }
}

#[test]
fn i3_the_model_notices_who_waits_for_nobody_after_a_restore() {
    for words in ["two are confirmed", "lost by a restore"] {
        let mut ends = (0..RESTORES).filter_map(|seed| restored(seed, Flaw::WaitsForNobody).err());
        assert!(ends.any(|reason| reason.contains(words)), "nobody sees: {words}");
    }
}
