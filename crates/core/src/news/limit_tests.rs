use buoy_api::binding::Epoch;

use super::*;
use crate::fixtures::{FLOATING, floating, now};
use crate::news::What;

fn news(name: &str, epoch: u64) -> News {
    News {
        about: Workload {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            is_pod: true,
        },
        what: What::Granted(floating(FLOATING), Epoch(epoch)),
    }
}

#[test]
fn what_repeats_itself_is_one_note_with_a_count() {
    let mut limits = Limits::default();
    let first = limits.admit(&news("web-0", 1), now(100)).unwrap();
    assert_eq!((first.count, first.reason), (1, "FloatingIPGranted"));
    for second in [101, 110, 129] {
        assert_eq!(limits.admit(&news("web-0", 1), now(second)), Err(Left::Counted));
    }
    let again = limits.admit(&news("web-0", 1), now(130)).unwrap();
    assert_eq!((again.count, again.number), (5, first.number));
    assert_eq!((again.first, again.last), (now(100).wall, now(130).wall));
    let later = limits.admit(&news("web-0", 1), now(100 + 600)).unwrap();
    assert_eq!(later.count, 1, "too late to be the same");
    assert_ne!(later.number, first.number);
}

#[test]
fn news_that_differ_in_their_hint_are_the_same() {
    let mut limits = Limits::default();
    let refused = |left: u32| News {
        what: What::NotAttached(format!(
            "nothing is allocated yet\nit is allowed again in {left} s"
        )),
        ..news("web-0", 1)
    };
    assert!(limits.admit(&refused(19), now(100)).is_ok());
    assert_eq!(limits.admit(&refused(18), now(101)), Err(Left::Counted));
}

#[test]
fn notes_of_one_instant_have_numbers_of_their_own() {
    let mut limits = Limits::default();
    let mut numbers: Vec<u64> = (0..20)
        .map(|epoch| limits.admit(&news("web-0", epoch), now(100)).unwrap().number)
        .collect();
    numbers.dedup();
    assert_eq!(numbers.len(), 20);
}

#[test]
fn one_workload_takes_no_more_than_its_part() {
    let mut limits = Limits::default();
    let mut admitted = |second: u64, name: &str, times: u64| {
        let epochs = (0..times).map(|n| second * 1000 + n);
        let notes = epochs.filter_map(|epoch| limits.admit(&news(name, epoch), now(second)).ok());
        notes.count()
    };
    assert_eq!(admitted(100, "web-0", 1000), 20);
    assert_eq!(admitted(100, "web-1", 3), 3, "another is not concerned");
    assert_eq!(admitted(159, "web-0", 9), 0);
    assert_eq!(admitted(161, "web-0", 9), 1);
    assert_eq!(admitted(10_000, "web-0", 99), 20);
}

#[test]
fn all_together_take_no_more_than_theirs_and_memory_has_a_bound() {
    let mut limits = Limits::default();
    let mut admitted = 0;
    for second in 100..1100 {
        for n in 0..20 {
            let name = format!("web-{second}-{n}");
            admitted += usize::from(limits.admit(&news(&name, 1), now(second)).is_ok());
        }
    }
    assert!((2190..=2210).contains(&admitted), "{admitted} of 20,000");
    assert!(limits.written.len() <= REMEMBERED);
    assert!(
        limits.buckets.len() <= REMEMBERED + 1200,
        "{}",
        limits.buckets.len()
    );
}
