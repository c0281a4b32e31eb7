//! Somebody takes: the owner's agent stands still, or its node is cut off.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::client::Client;
use super::super::progress;
use super::super::report::{Aim, Report, Row};
use super::web::Web;
use super::{Field, Scale, address};
use crate::node::Node;

/// A lease of six seconds and ten percent, and a second for the takeover: in milliseconds.
const TAKEN: f64 = 7_600.0;

/// Both, each some times. The owner is the first of the pair, before and after each.
pub(super) fn measure(field: &Field, pair: &mut [Web; 2], scale: &Scale, report: &mut Report) -> Result<()> {
    progress("  agents that are frozen")?;
    let took = again_and_again(
        field,
        pair,
        scale.taken,
        |node| field.cluster.freeze(node),
        |node| field.cluster.thaw(node),
    )?;
    report.add(Row::times("takeover/frozen", &took).aim(Aim::P99(TAKEN)));
    progress("  nodes that are cut off")?;
    let took = again_and_again(
        field,
        pair,
        scale.taken,
        |node| field.cluster.cut(node),
        |node| {
            field.cluster.restore(node)?;
            field.cluster.wait_for_sessions()
        },
    )?;
    report.add(Row::times("takeover/cut", &took).aim(Aim::P99(TAKEN)));
    Ok(())
}

/// Lets it happen to the owner's node, waits for the other's answer, and makes it good again.
fn again_and_again(
    field: &Field,
    pair: &mut [Web; 2],
    times: usize,
    happens: impl Fn(&Node) -> Result<()>,
    mend: impl Fn(&Node) -> Result<()>,
) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    for _ in 0..times {
        field.rest()?;
        let client = Client::start(&field.cluster.client, address(0), false)?;
        client.first_answer(pair[0].octet, None)?;
        let begun = Instant::now();
        happens(&pair[0].node)?;
        took.push(client.answered_after(pair[1].octet, begun)?);
        mend(&pair[0].node)?;
        pair.swap(0, 1);
        field.check()?;
    }
    Ok(took)
}
