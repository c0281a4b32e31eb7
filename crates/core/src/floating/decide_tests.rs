use super::*;
use buoy_api::binding::{BindingSpec, Epoch, Move, Target};
use buoy_api::meta::ObjectMeta;

use crate::fixtures::now;

const HOLD: Duration = Duration::from_secs(600);

fn candidate(workload: &str, since: i64) -> Candidate {
    Candidate {
        node: "n1".into(),
        workload: workload.into(),
        endpoint: "eth0".into(),
        uid: format!("uid-{workload}"),
        internal_ip: "10.65.0.7".parse().unwrap(),
        ready: true,
        priority: 0,
        since: Timestamp::from_second(since).unwrap(),
    }
}

fn binding(owner: Option<&Candidate>, said: &[Candidate]) -> Binding {
    let mut binding = Binding::new(
        ObjectMeta::named("172-16-1-3"),
        BindingSpec {
            address: "172.16.1.3".parse().unwrap(),
            namespace: "shop".into(),
            owner: owner.map(|c| c.as_owner(Term(0))),
            epoch: Epoch(7),
            released: owner.is_none().then(|| Timestamp::from_second(1000).unwrap()),
            ..BindingSpec::default()
        },
    );
    binding.status.candidates = said.to_vec();
    binding
}

fn case<'a>(binding: &'a Binding, mine: &'a [Candidate]) -> Case<'a> {
    Case {
        binding,
        node: "n1",
        mine,
        hold: HOLD,
        standing: Standing::Holder(Term(0)),
        rival: None,
        since: Mono::default(),
        can_announce: true,
        deaf: Vec::new(),
        giving: false,
        exclusive: false,
        successor: false,
    }
}

fn decision(binding: &Binding, mine: &[Candidate], second: u64) -> Decision {
    decide(&case(binding, mine), now(second))
}

#[test]
fn the_oldest_candidate_gets_a_new_address() {
    let (old, young) = (candidate("b", 1), candidate("a", 2));
    assert_eq!(first(&[young, old.clone()]), Some(&old));
    assert_eq!(first(&[]), None);
}

#[test]
fn an_owner_stays_and_a_standby_is_published() {
    let (owner, standby) = (candidate("a", 5), candidate("b", 1));
    let both = [owner.clone(), standby.clone()];
    assert_eq!(decision(&binding(Some(&owner), &both), &both, 9), Decision::Hold);
    let unsaid = binding(Some(&owner), std::slice::from_ref(&owner));
    assert_eq!(decision(&unsaid, &both, 9), Decision::Publish(both.to_vec()));
}

#[test]
fn the_standby_takes_over_when_the_owner_is_gone() {
    let (owner, standby) = (candidate("a", 1), candidate("b", 2));
    let mine = [standby.clone()];
    let expected = Decision::Claim(standby.as_owner(Term(0)), Reason::OwnerGone);
    assert_eq!(decision(&binding(Some(&owner), &[]), &mine, 9), expected);
    assert_eq!(decision(&binding(Some(&owner), &[]), &[], 9), Decision::Release);
}

#[test]
fn an_address_waits_for_the_next_incarnation_of_its_owner() {
    let (owner, standby) = (candidate("a", 1), candidate("b", 2));
    let held = binding(Some(&owner), std::slice::from_ref(&standby));
    let with = |mine: &[Candidate], successor| {
        let case = Case {
            successor,
            ..case(&held, mine)
        };
        decide(&case, now(9))
    };
    let both = [
        Candidate {
            uid: "uid-anew".into(),
            since: Timestamp::from_second(3).unwrap(),
            ..owner.clone()
        },
        standby.clone(),
    ];
    assert_eq!(
        with(&both[1..], true),
        Decision::Hold,
        "neither released nor passed on"
    );
    let failed = Decision::Claim(standby.as_owner(Term(0)), Reason::OwnerGone);
    assert_eq!(with(&both[1..], false), failed);
    let linked = Decision::Claim(both[0].as_owner(Term(0)), Reason::OwnerGone);
    assert_eq!(with(&both, false), linked, "in one write, and not the standby's");
}

#[test]
fn a_move_and_a_priority_outrank_the_owner() {
    let (owner, mut standby) = (candidate("a", 1), candidate("b", 2));
    let both = [owner.clone(), standby.clone()];
    let mut moved = binding(Some(&owner), &both);
    let to = Target {
        node: None,
        workload: "b".into(),
        endpoint: None,
    };
    moved.spec.requested_move = Some(Move {
        id: "1".into(),
        to,
        exclusive: false,
        drain: None,
    });
    let expected = Decision::Claim(standby.as_owner(Term(0)), Reason::Better);
    assert_eq!(decision(&moved, &both, 9), expected);
    standby.priority = 1;
    let both = [owner.clone(), standby.clone()];
    assert_eq!(decision(&binding(Some(&owner), &both), &both, 9), expected);
}

#[test]
fn another_nodes_address_is_left_alone() {
    let mut elsewhere = candidate("a", 1);
    elsewhere.node = "n2".into();
    let mine = [candidate("b", 2)];
    let said = [elsewhere.clone(), mine[0].clone()];
    assert_eq!(
        decision(&binding(Some(&elsewhere), &said), &mine, 9),
        Decision::Hold
    );
}

#[test]
fn an_address_that_another_node_waits_for_is_not_collected() {
    let mut elsewhere = candidate("a", 1);
    elsewhere.node = "n2".into();
    assert_eq!(decision(&binding(None, &[elsewhere]), &[], 1700), Decision::Hold);
}

#[test]
fn an_owner_whose_address_changed_claims_anew() {
    let owner = candidate("a", 1);
    let mut renumbered = owner.clone();
    renumbered.internal_ip = "10.65.0.8".parse().unwrap();
    let expected = Decision::Claim(renumbered.as_owner(Term(0)), Reason::Renumbered);
    let owned = binding(Some(&owner), std::slice::from_ref(&owner));
    assert_eq!(decision(&owned, &[renumbered], 9), expected);
}

#[test]
fn one_that_is_not_ready_takes_nothing_from_one_that_is() {
    let (owner, mut standby) = (candidate("a", 5), candidate("b", 1));
    standby.ready = false;
    standby.priority = 9;
    let both = [owner.clone(), standby.clone()];
    assert_eq!(decision(&binding(Some(&owner), &both), &both, 9), Decision::Hold);
    let alone = [standby.clone()];
    let expected = Decision::Claim(standby.as_owner(Term(0)), Reason::Free);
    assert_eq!(decision(&binding(None, &alone), &alone, 9), expected);
}

#[test]
fn an_address_is_held_for_its_namespace_and_then_collected() {
    let free = binding(None, &[]);
    assert_eq!(decision(&free, &[], 1599), Decision::Wait(now(1600).mono));
    assert_eq!(decision(&free, &[], 1600), Decision::Collect);
    let back = candidate("a", 1100);
    let expected = Decision::Claim(back.as_owner(Term(0)), Reason::Free);
    assert_eq!(decision(&free, &[back], 1700), expected);
}

fn on(node: &str, workload: &str, since: i64) -> Candidate {
    Candidate {
        node: node.into(),
        ..candidate(workload, since)
    }
}

fn offer(to: &Candidate, from: &str) -> Offer {
    Offer {
        to: Target {
            node: Some(to.node.clone()),
            workload: to.workload.clone(),
            endpoint: Some(to.endpoint.clone()),
        },
        from: from.to_owned(),
    }
}

fn at(millis: u64) -> Now {
    Now {
        wall: now(1).wall,
        mono: Mono(Duration::from_millis(millis)),
    }
}

#[test]
fn the_living_give_and_say_whom_they_mean() {
    let (owner, elsewhere) = (candidate("a", 1), on("n2", "b", 2));
    let gone = binding(Some(&owner), std::slice::from_ref(&elsewhere));
    let given = |reason| Decision::Offer {
        offer: offer(&elsewhere, "n1"),
        exclusive: false,
        reason,
    };
    assert_eq!(decision(&gone, &[], 9), given(Reason::OwnerGone));
    let mut better = elsewhere.clone();
    better.priority = 1;
    let outranked = binding(Some(&owner), &[owner.clone(), better]);
    assert_eq!(
        decision(&outranked, std::slice::from_ref(&owner), 9),
        given(Reason::Better)
    );
    let exclusive = Case {
        exclusive: true,
        ..case(&gone, &[])
    };
    assert!(matches!(
        decide(&exclusive, now(9)),
        Decision::Offer { exclusive: true, .. }
    ));
}

#[test]
fn an_owner_that_is_gone_is_no_candidate_any_more_before_its_address_is_offered() {
    let (owner, elsewhere) = (candidate("a", 1), on("n2", "b", 2));
    let gone = binding(Some(&owner), &[owner.clone(), elsewhere]);
    assert_eq!(decision(&gone, &[], 9), Decision::Publish(Vec::new()));
}

#[test]
fn who_did_not_take_what_it_was_offered_is_passed_over() {
    let (owner, mut better) = (candidate("a", 1), on("n2", "b", 2));
    better.priority = 1;
    let both = binding(Some(&owner), &[owner.clone(), better.clone()]);
    let mine = [owner];
    let deaf = Case {
        deaf: vec![&better],
        ..case(&both, &mine)
    };
    assert_eq!(decide(&deaf, now(9)), Decision::Hold);
}

#[test]
fn what_was_to_be_given_away_and_is_not_has_a_new_turn() {
    let owner = candidate("a", 1);
    let kept = binding(Some(&owner), std::slice::from_ref(&owner));
    let unsure = Case {
        giving: true,
        ..case(&kept, std::slice::from_ref(&owner))
    };
    let expected = Decision::Claim(owner.as_owner(Term(0)), Reason::Kept);
    assert_eq!(decide(&unsure, now(9)), expected);
}

#[test]
fn what_a_later_term_owns_is_not_written_over() {
    let (owner, better) = (candidate("a", 1), candidate("b", 2));
    let mut theirs = binding(Some(&owner), &[]);
    theirs.spec.owner = Some(owner.as_owner(Term(3)));
    // Its clock stood, and another agent under this node's name took the lease meanwhile.
    let paused = Case {
        standing: Standing::Holder(Term(1)),
        ..case(&theirs, std::slice::from_ref(&better))
    };
    assert_eq!(decide(&paused, now(9)), Decision::Publish(vec![better.clone()]));
    theirs.status.candidates = vec![better.clone()];
    let paused = Case {
        standing: Standing::Holder(Term(1)),
        ..case(&theirs, std::slice::from_ref(&better))
    };
    assert_eq!(decide(&paused, now(9)), Decision::NeedLease);
}

#[test]
fn an_owner_that_is_not_ready_yields_to_one_that_is() {
    let (mut owner, ready) = (candidate("a", 1), on("n2", "b", 2));
    owner.ready = false;
    let both = binding(Some(&owner), &[owner.clone(), ready.clone()]);
    assert!(matches!(
        decision(&both, std::slice::from_ref(&owner), 9),
        Decision::Offer { .. }
    ));
    let mut neither = both.clone();
    neither.status.candidates[1].ready = false;
    assert_eq!(decision(&neither, &[owner], 9), Decision::Hold);
}

#[test]
fn an_offer_is_taken_at_once_by_whom_it_is_for_then_in_turn_and_last_by_whom_it_is_from() {
    let (meant, second, third) = (on("n2", "b", 1), on("n1", "a", 3), on("n3", "c", 2));
    let all = [meant.clone(), second.clone(), third.clone()];
    let mut offered = binding(None, &all);
    let due = |binding: &Binding, mine: &Candidate, node: &'static str| {
        let mine = [mine.clone()];
        let case = Case {
            node,
            ..case(binding, &mine)
        };
        let mut millis = (0..6000).step_by(100);
        millis.find(|t| matches!(decide(&case, at(*t)), Decision::Claim(_, Reason::Free)))
    };
    offered.spec.offer = Some(offer(&meant, "n4"));
    assert_eq!(due(&offered, &meant, "n2"), Some(0));
    assert_eq!(due(&offered, &third, "n3"), Some(500));
    assert_eq!(due(&offered, &second, "n1"), Some(1000));
    offered.spec.offer = Some(offer(&meant, "n1"));
    assert_eq!(due(&offered, &third, "n3"), Some(500));
    assert_eq!(due(&offered, &second, "n1"), Some(3000));
    offered.spec.offer = None;
    assert_eq!(due(&offered, &meant, "n2"), Some(0));
    assert_eq!(due(&offered, &third, "n3"), Some(500));
    assert_eq!(due(&offered, &second, "n1"), Some(1000));
}

#[test]
fn from_another_node_nothing_is_taken_but_below_its_leases_term() {
    let (owner, mine) = (on("n2", "b", 1), [candidate("a", 2)]);
    let mut owned = binding(Some(&owner), &[owner.clone(), mine[0].clone()]);
    owned.spec.owner.as_mut().unwrap().term = Term(4);
    let with = |term: u64, second: u64| {
        let case = Case {
            rival: Some(Rival {
                term: Term(term),
                since: now(9).mono,
            }),
            ..case(&owned, &mine)
        };
        decide(&case, now(second))
    };
    assert_eq!(with(4, 99), Decision::Hold);
    assert_eq!(
        with(5, 9),
        Decision::Claim(mine[0].as_owner(Term(0)), Reason::Revoked)
    );
}

#[test]
fn nothing_is_claimed_that_would_not_be_announced_or_while_not_ready() {
    let mine = [candidate("a", 2)];
    let free = binding(None, &mine);
    let mute = Case {
        can_announce: false,
        ..case(&free, &mine)
    };
    assert_eq!(decide(&mute, now(9)), Decision::Hold);
    let owner = on("n2", "b", 1);
    let mut unready = [candidate("a", 2)];
    unready[0].ready = false;
    let owned = binding(Some(&owner), &[owner.clone(), unready[0].clone()]);
    let revoked = Case {
        rival: Some(Rival {
            term: Term(1),
            since: Mono::default(),
        }),
        ..case(&owned, &unready)
    };
    assert_eq!(decide(&revoked, now(9)), Decision::Hold);
}

#[test]
fn no_owner_is_written_without_a_lease_that_stands() {
    let mine = [candidate("a", 1), candidate("b", 2)];
    for standing in [Standing::Without, Standing::Foreign] {
        let free = binding(None, &mine);
        let claims = Case {
            standing,
            ..case(&free, &mine)
        };
        assert_eq!(decide(&claims, now(9)), Decision::NeedLease, "{standing:?}");
    }
    let gone = binding(Some(&candidate("c", 0)), &mine);
    let passes = Case {
        standing: Standing::Without,
        ..case(&gone, &mine)
    };
    assert_eq!(decide(&passes, now(9)), Decision::NeedLease);
    // Under a foreign holder what this node owns is somebody else's.
    let foreign = Case {
        standing: Standing::Foreign,
        ..case(&gone, &mine)
    };
    assert_eq!(decide(&foreign, now(9)), Decision::Hold);
}

#[test]
fn a_new_term_is_written_into_what_is_still_owned() {
    let mine = [candidate("a", 1)];
    let owned = binding(Some(&mine[0]), &mine);
    let again = Case {
        standing: Standing::Holder(Term(3)),
        ..case(&owned, &mine)
    };
    assert_eq!(decide(&again, now(9)), Decision::Restamp(Term(3)));
}
