use super::*;
use crate::duty::{Duty, owed};
use crate::fixtures::{FLOATING, binding, candidate, floating, node, now, pod, put, view};
use crate::store::Value;
use crate::subject::Subject;
use crate::time::Mono;

/// The pod owns the address, and the kernel has this of it.
fn owned(programmed: Option<Programmed>) -> View {
    let mut view = view();
    view.set_programmed(floating(FLOATING), programmed);
    put(&mut view, Value::Binding(binding_of_web()));
    view
}

fn binding_of_web() -> Binding {
    let mut binding = binding(Some(&candidate(&pod("web-0", 7))));
    binding.status.candidates = vec![candidate(&pod("web-0", 7))];
    binding
}

/// Type, status and reason of each.
fn said(view: &View) -> Vec<String> {
    let binding = view.bindings.get(&floating(FLOATING)).unwrap();
    let conditions = of(view, floating(FLOATING), binding);
    conditions
        .iter()
        .map(|c| format!("{}={} {}", c.kind, c.status, c.reason))
        .collect()
}

#[test]
fn they_say_what_is_so() {
    let yes = owned(Some(Programmed::Yes));
    let all = [
        "Accepted=True Allowed",
        "Advertised=Unknown LeftToOthers",
        "Programmed=True Programmed",
    ];
    assert_eq!(said(&yes), all);
    for (programmed, reason) in [
        (None, "Pending"),
        (Some(Programmed::Pending), "Pending"),
        (Some(Programmed::Failed("no such device".to_owned())), "Failed"),
    ] {
        let [_, advertised, programmed] = said(&owned(programmed)).try_into().unwrap();
        assert_eq!(advertised, "Advertised=False NotProgrammed");
        assert_eq!(programmed, format!("Programmed=False {reason}"));
    }
}

#[test]
fn a_lost_right_is_said_while_the_address_is_still_here() {
    let mut view = owned(Some(Programmed::Yes));
    put(&mut view, Value::Node(node("n2", &format!("{FLOATING}/24"))));
    assert_eq!(said(&view)[0], "Accepted=False NodeAddress");
}

#[test]
fn bird_announces_when_it_is_ready_and_somebody_listens() {
    let mut view = owned(Some(Programmed::Yes));
    view.settings.routing = Routing::Bird;
    assert_eq!(said(&view)[1], "Advertised=False NoSession");
    let concerned = view.set_heard(true);
    assert!(concerned.contains(&Subject::Binding(floating(FLOATING))));
    assert!(view.set_heard(true).is_empty());
    assert_eq!(said(&view)[1], "Advertised=True Announced");
    let daemon = Daemon::NotReady {
        why: "started for the 3rd time, in 7 s again".to_owned(),
        is_away: false,
    };
    view.set_daemon(daemon, Mono::default());
    assert_eq!(said(&view)[1], "Advertised=False RoutingDaemonNotReady");
}

#[test]
fn only_the_owners_node_speaks() {
    let mut elsewhere = candidate(&pod("web-0", 7));
    elsewhere.node = "n2".to_owned();
    for owner in [None, Some(&elsewhere)] {
        let mut view = owned(Some(Programmed::Yes));
        put(&mut view, Value::Binding(binding(owner)));
        assert_eq!(said(&view), [""; 0]);
    }
}

#[test]
fn they_are_written_when_they_change_and_have_stood_for_a_moment() {
    let mut view = owned(Some(Programmed::Yes));
    let subject = Subject::Binding(floating(FLOATING));
    let due = owed(&view, &subject, now(2000));
    let Some(Duty::Candidates {
        candidates,
        conditions,
        ..
    }) = due.duty
    else {
        panic!("{due:?}")
    };
    assert_eq!((candidates.len(), conditions.len()), (1, 3));
    assert!(!due.grace.is_zero());
    let mut written = binding_of_web();
    written.status.conditions = conditions;
    // In whatever order, and beside those of others.
    written.status.conditions.reverse();
    let contested = condition("Contested", "False", "", "");
    written.status.conditions.push(contested);
    put(&mut view, Value::Binding(written));
    assert_eq!(owed(&view, &subject, now(2000)).duty, None);
    view.set_programmed(floating(FLOATING), Some(Programmed::Pending));
    assert!(owed(&view, &subject, now(2000)).duty.is_some());
}

#[test]
fn who_stands_by_here_waits_for_nothing() {
    let mut view = owned(Some(Programmed::Yes));
    view.put_attachment(pod("web-1", 8));
    let due = owed(&view, &Subject::Binding(floating(FLOATING)), now(2000));
    assert!(
        matches!(&due.duty, Some(Duty::Candidates { candidates, .. }) if candidates.len() == 2),
        "{due:?}"
    );
    assert!(due.grace.is_zero(), "others act on who stands by");
}
