use super::*;
use crate::fixtures::now;
use crate::store::{Next, Record, Reply, Steps, StoreOp, Value};

fn holder(identity: &str, second: u64) -> Holder {
    let now = now(second);
    Holder {
        node: "n1".to_owned(),
        identity: identity.to_owned(),
        wall: now.wall,
        mono: now.mono,
    }
}

fn lease(holder: Option<&str>, term: u64) -> NodeLease {
    let mut lease = fresh("n1");
    lease.spec.holder = holder.map(str::to_owned);
    lease.spec.term = Term(term);
    lease.spec.duration_seconds = 6;
    lease
}

fn record(lease: &NodeLease, revision: u64) -> Reply {
    Reply::Record(Some(Record {
        key: key("n1"),
        revision: Revision(revision),
        value: Ok(Value::Lease(lease.clone())),
    }))
}

fn held(term: u64, revision: u64, began: u64) -> Held {
    Held {
        term: Term(term),
        revision: Revision(revision),
        began: now(began).mono,
    }
}

/// The term and the holder that an operation writes, and the revision it is tied to.
fn written<O>(next: Next<O>) -> (Option<String>, u64, Option<u64>) {
    match next {
        Next::Do(StoreOp::Create(_, Value::Lease(lease))) => (lease.spec.holder, lease.spec.term.0, None),
        Next::Do(StoreOp::Update(_, Value::Lease(lease), revision)) => {
            (lease.spec.holder, lease.spec.term.0, Some(revision.0))
        }
        _ => panic!("no write"),
    }
}

fn me() -> Option<String> {
    Some("me".to_owned())
}

/// What an agent writes that finds this record.
fn taken(found: Reply, floor: u64) -> (Option<String>, u64, Option<u64>) {
    let mut keep = KeepLease::new(holder("me", 5), None, Term(floor));
    assert!(matches!(keep.step(Reply::Start), Next::Do(StoreOp::Get(_))));
    written(keep.step(found))
}

#[test]
fn a_lease_is_taken_with_a_term_above_all_before() {
    assert_eq!(taken(Reply::Record(None), 0), (me(), 1, None));
    assert_eq!(taken(Reply::Record(None), 7), (me(), 8, None));
    assert_eq!(taken(record(&lease(None, 4), 9), 0), (me(), 5, Some(9)));
    assert_eq!(taken(record(&lease(None, 4), 9), 7), (me(), 8, Some(9)));
}

#[test]
fn running_out_is_not_losing() {
    assert_eq!(taken(record(&lease(Some("me"), 4), 9), 4), (me(), 4, Some(9)));
    // But a record below what an owner here has is one that was restored.
    assert_eq!(taken(record(&lease(Some("me"), 4), 9), 6), (me(), 7, Some(9)));
}

#[test]
fn a_renewal_is_tied_to_the_revision_known_and_counts_from_its_beginning() {
    let mut keep = KeepLease::new(holder("me", 5), Some(held(4, 9, 3)), Term(4));
    assert_eq!(written(keep.step(Reply::Start)), (me(), 4, Some(9)));
    let Next::Done(Ok(Kept::Held(renewed))) = keep.step(Reply::Written(Revision(12))) else {
        panic!("not renewed");
    };
    assert_eq!(renewed, held(4, 12, 5));
    assert!(renewed.is_live(now(10).mono) && !renewed.is_live(now(11).mono));
}

#[test]
fn who_was_revoked_hears_it_at_the_renewal_and_takes_the_lease_again() {
    let mut keep = KeepLease::new(holder("me", 5), Some(held(4, 9, 3)), Term(4));
    keep.step(Reply::Start);
    assert!(matches!(keep.step(Reply::Conflict), Next::Do(StoreOp::Get(_))));
    assert_eq!(
        written(keep.step(record(&lease(None, 5), 11))),
        (me(), 6, Some(11))
    );
}

#[test]
fn a_renewal_whose_answer_was_lost_is_renewed_again() {
    let mut keep = KeepLease::new(holder("me", 5), Some(held(4, 9, 3)), Term(4));
    keep.step(Reply::Start);
    keep.step(Reply::Unknown);
    assert_eq!(
        written(keep.step(record(&lease(Some("me"), 4), 10))),
        (me(), 4, Some(10))
    );
}

#[test]
fn another_agents_lease_is_left_alone() {
    let mut keep = KeepLease::new(holder("me", 5), None, Term(0));
    keep.step(Reply::Start);
    let foreign = Kept::Foreign("other".to_owned());
    assert_eq!(
        keep.step(record(&lease(Some("other"), 4), 9)),
        Next::Done(Ok(foreign))
    );
}

#[test]
fn a_lease_that_everybody_writes_all_the_time_or_nobody_can_read_is_an_error() {
    let mut keep = KeepLease::new(holder("me", 5), None, Term(0));
    keep.step(Reply::Start);
    let mut ended = None;
    for _ in 0..20 {
        keep.step(record(&lease(None, 4), 9));
        if let Next::Done(out) = keep.step(Reply::Conflict) {
            ended = Some(out);
            break;
        }
    }
    assert!(ended.unwrap().unwrap_err().is_retryable());
    let mut keep = KeepLease::new(holder("me", 5), None, Term(0));
    keep.step(Reply::Start);
    let bad = Reply::Record(Some(Record {
        key: key("n1"),
        revision: Revision(3),
        value: Err(crate::store::Bad {
            reason: "line 1".to_owned(),
        }),
    }));
    let Next::Done(Err(error)) = keep.step(bad) else {
        panic!()
    };
    assert_eq!(
        error.to_string(),
        "NodeLease n1 cannot be read: line 1\nmend or delete it"
    );
}

#[test]
fn a_lease_that_is_left_has_no_holder_and_keeps_its_term() {
    let left = leave(&holder("me", 9), &held(4, 9, 3));
    assert_eq!(written(Next::<()>::Do(left)), (None, 4, Some(9)));
}

#[test]
fn an_agent_that_is_away_on_purpose_says_for_how_long() {
    let mut keep = KeepLease::prolong(holder("me", 5), held(4, 9, 3));
    let Next::Do(StoreOp::Update(_, Value::Lease(lease), _)) = keep.step(Reply::Start) else {
        panic!("no write");
    };
    assert_eq!(lease.spec.duration_seconds, 60);
}

/// Readings of one lease, by their times in milliseconds and the revision that each found.
fn readings(lease: &NodeLease, all: &[(u64, u64)]) -> Sighting {
    let mut seen: Option<Sighting> = None;
    for (millis, revision) in all {
        let found = Some((lease.clone(), Revision(*revision)));
        let ended = Mono(Duration::from_millis(*millis));
        seen = Some(Sighting::read(seen.as_ref(), found, ended));
    }
    seen.unwrap()
}

#[test]
fn a_lease_may_be_revoked_once_one_revision_stood_for_its_duration_and_a_tenth() {
    let steady = |until: u64| (0..=until).step_by(500).map(|t| (t, 7)).collect::<Vec<_>>();
    let lease = lease(Some("me"), 4);
    assert!(!readings(&lease, &steady(6500)).is_due());
    let mut long = steady(6500);
    long.push((6600, 7));
    let seen = readings(&lease, &long);
    assert!(seen.is_revocable(Mono(Duration::from_millis(7600))));
    assert!(
        !seen.is_revocable(Mono(Duration::from_millis(7601))),
        "nothing was heard since"
    );
}

#[test]
fn a_renewal_or_a_gap_begins_the_count_anew() {
    let lease = lease(Some("me"), 4);
    let renewed: Vec<_> = (0..=10_000)
        .step_by(500)
        .map(|t| (t, if t < 4000 { 7 } else { 8 }))
        .collect();
    assert!(!readings(&lease, &renewed).is_due());
    let gap: Vec<_> = (0..=10_000)
        .step_by(500)
        .filter(|t| !(4000..5000).contains(t))
        .map(|t| (t, 7))
        .collect();
    assert_eq!(readings(&lease, &gap).since, Mono(Duration::from_secs(5)));
    assert!(!readings(&lease, &gap).is_due());
}

#[test]
fn a_count_knows_why_it_began() {
    let lease = lease(Some("me"), 4);
    let seen = |all: &[(u64, u64)]| readings(&lease, all).begun;
    assert_eq!(seen(&[(0, 7), (500, 7)]), Begun::First);
    assert_eq!(seen(&[(0, 7), (500, 8), (1000, 8)]), Begun::Changed);
    assert_eq!(
        seen(&[(0, 7), (1700, 7)]),
        Begun::Gap(Duration::from_millis(1700))
    );
    assert_eq!(
        Begun::Gap(Duration::from_millis(1700)).to_string(),
        "no answer of the datastore for 1700 ms"
    );
    let failed = readings(&lease, &[(0, 7), (500, 7)]).not_revoked(Mono(Duration::from_secs(1)));
    assert_eq!(
        (failed.since, failed.begun),
        (Mono(Duration::from_secs(1)), Begun::NotRevoked)
    );
}

#[test]
fn a_lease_is_taken_by_who_will_revoke_before_long() {
    let mut lease = lease(Some("me"), 4);
    assert!(!readings(&lease, &[(0, 7), (900, 7), (1800, 7), (2700, 7)]).needs_proof());
    assert!(readings(&lease, &[(0, 7), (1000, 7), (2000, 7), (3000, 7)]).needs_proof());
    lease.spec.duration_seconds = 60;
    assert!(!readings(&lease, &[(0, 7), (1000, 7), (2000, 7), (3000, 7)]).needs_proof());
}

#[test]
fn a_long_lease_stands_long_and_a_missing_one_as_long_as_any() {
    let mut long = lease(Some("me"), 4);
    long.spec.duration_seconds = 60;
    let seen = readings(&long, &[(0, 7)]);
    assert_eq!(seen.patience(), Duration::from_secs(66));
    let missing = Sighting::read(None, None, Mono::default());
    assert_eq!(missing.patience(), Duration::from_millis(6600));
    assert!(!missing.outranks(Term(0)));
}

#[test]
fn a_revocation_raises_the_term_above_every_owner_at_the_revision_that_was_seen() {
    let seen = readings(&lease(Some("me"), 4), &[(0, 7)]);
    let mut revoke = RevokeLease::new("n1".to_owned(), &seen, Term(4));
    assert_eq!(written(revoke.step(Reply::Start)), (None, 5, Some(7)));
    let Next::Done(Ok(Some((revoked, revision)))) = revoke.step(Reply::Written(Revision(8))) else {
        panic!("not revoked");
    };
    assert_eq!((revoked.spec.term, revision), (Term(5), Revision(8)));
    let missing = Sighting::read(None, None, Mono::default());
    let mut revoke = RevokeLease::new("n1".to_owned(), &missing, Term(9));
    assert_eq!(written(revoke.step(Reply::Start)), (None, 10, None));
}

#[test]
fn who_renewed_in_time_lives() {
    let seen = readings(&lease(Some("me"), 4), &[(0, 7)]);
    let mut revoke = RevokeLease::new("n1".to_owned(), &seen, Term(4));
    revoke.step(Reply::Start);
    assert!(matches!(revoke.step(Reply::Conflict), Next::Do(StoreOp::Get(_))));
    let Next::Done(Ok(Some((found, _)))) = revoke.step(record(&lease(Some("me"), 4), 8)) else {
        panic!("no answer");
    };
    assert_eq!(found.spec.holder, me());
}
