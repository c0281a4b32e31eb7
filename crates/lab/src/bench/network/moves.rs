//! The owner gives: a move that was asked for, and an owner that is deleted.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::super::client::Client;
use super::super::report::{Aim, Report, Row};
use super::super::{bindings, progress};
use super::web::Web;
use super::{Field, OFTEN, PATIENCE, Scale, address};
use crate::exec::eventually;
use crate::probe::{Probe, Via};

/// Pings that are answered after a move before the next begins.
const CALM: u32 = 10;
/// A pause in which the agents can come to their end with the change before.
const PAUSE: Duration = Duration::from_millis(15);

/// Moves the address from one node to the other and back. The owner is the first of the pair, before and after.
pub(super) fn planned(field: &Field, pair: &[Web; 2], scale: &Scale, report: &mut Report) -> Result<()> {
    progress("  planned moves across nodes")?;
    let client = &field.cluster.client;
    let clients = [
        Client::start(client, address(0), false)?,
        Client::start(client, address(0), true)?,
    ];
    for client in &clients {
        client.first_answer(pair[0].octet, None)?;
    }
    let ping = Probe::start(client, Via::Ping, address(0), OFTEN)?;
    ping.wait_for_more(CALM, PATIENCE)?;
    field.rest()?;
    let (mut took, mut lost) = ([Vec::new(), Vec::new()], Vec::new());
    // An even number, so that the first has it again.
    for number in 0..scale.moves.next_multiple_of(2) {
        let next = &pair[(number + 1) % 2];
        let before = ping.tally().overtaken();
        let id = format!("bench-{number}");
        let begun = bindings::ask_to_move(field.store.as_ref(), address(0), next.name(), &id)?;
        for (client, took) in clients.iter().zip(&mut took) {
            took.push(client.answered_after(next.octet, begun)?);
        }
        let after = ping.wait_for_more(CALM, PATIENCE)?.overtaken();
        lost.push(after.saturating_sub(before) as f64);
        thread::sleep(PAUSE);
    }
    let [fresh, kept] = &took;
    report.add(Row::times("move/nodes/planned", fresh).aim(Aim::P99(100.0)));
    report.add(Row::times("move/nodes/planned-kept", kept).aim(Aim::P99(100.0)));
    report.add(Row::costs("move/nodes/planned-lost", "pings", &lost).aim(Aim::P99(2.0)));
    field.check()
}

/// Deletes the owner again and again; each time the other has the address, and a new one stands by in its place.
pub(super) fn deleted(field: &Field, pair: &mut [Web; 2], scale: &Scale, report: &mut Report) -> Result<()> {
    progress("  owners that are deleted")?;
    let client = Client::start(&field.cluster.client, address(0), false)?;
    client.first_answer(pair[0].octet, None)?;
    let mut took = Vec::new();
    // An even number, so that both are new in the end: a move that was asked for names none of them.
    for _ in 0..scale.deleted.next_multiple_of(2) {
        let begun = pair[0].detach()?;
        took.push(client.answered_after(pair[1].octet, begun)?);
        pair[0] = Web::start(&pair[0].node, pair[0].octet, &[address(0)])?;
        pair.swap(0, 1);
        stands_by(field, &pair[1])?;
        field.rest()?;
    }
    report.add(Row::times("move/nodes/deleted", &took).aim(Aim::P99(150.0)));
    field.check()
}

/// Until the binding names a workload as a candidate.
fn stands_by(field: &Field, web: &Web) -> Result<()> {
    eventually(PATIENCE, "a workload stands by", || {
        let binding = bindings::binding(field.store.as_ref(), address(0))?;
        bindings::candidate(&binding, web.name()).map(drop)
    })
}
