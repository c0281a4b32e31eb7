//! Questions that tests ask again until the answer is the one they wait for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::exec::eventually;
use crate::faults::Seen;
use crate::netns::Netns;
use crate::node::Node;
use crate::probe::{self, Answer, Via};

/// Generous: a busy machine takes its time.
const SOON: Duration = Duration::from_secs(30);

/// Asks until `who` answers.
pub fn answered_by(from: &Netns, via: Via, to: &str, who: &str) -> Result<Answer> {
    eventually(SOON, &format!("{who} answers {} to {to}", via.name()), || {
        let answer = probe::ask(from, via, to.parse()?, Duration::from_secs(1))?;
        ensure!(answer.who == who, "{} answers", answer.who);
        Ok(answer)
    })
}

/// Asks until nobody answers.
pub fn silent(from: &Netns, to: &str) -> Result<()> {
    eventually(SOON, &format!("{to} falls silent"), || {
        probe::nobody_answers(from, Via::Udp, to.parse()?, Duration::from_millis(200))
    })
}

/// Reads `fip why` until it says this.
pub fn why_says(node: &Node, floating: &str, words: &[&str]) -> Result<String> {
    eventually(SOON, &format!("'why' of {floating} says {words:?}"), || {
        let why = node.ctl(&format!("fip why {floating}"))?;
        for word in words {
            ensure!(why.contains(word), "no '{word}' in:\n{why}");
        }
        Ok(why)
    })
}

/// Reads the row of `fip list` for an address until it is so.
pub fn listed_as(node: &Node, floating: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually(SOON, &format!("{floating}: {what}"), || {
        let row = listed(node, floating)?;
        ensure!(is_so(&row), "{row}");
        Ok(row)
    })
}

/// Reads `fip list` until nobody owns an address. DEL does not wait for the datastore.
pub fn given_up(node: &Node, floating: &str) -> Result<Value> {
    let no_owner = |row: &Value| row["owner"].as_str().unwrap_or_default().is_empty();
    listed_as(node, floating, "nobody owns it", no_owner)
}

/// Reads `node status` until it says this.
pub fn status_says(node: &Node, words: &[&str]) -> Result<String> {
    eventually(SOON, &format!("status of {} says {words:?}", node.name()), || {
        let status = node.ctl("node status")?;
        for word in words {
            ensure!(status.contains(word), "no '{word}' in:\n{status}");
        }
        Ok(status)
    })
}

/// Waits until the agent says this of itself, in each of the ways to see it.
pub fn shows(node: &Node, seen: Seen) -> Result<()> {
    seen.at(&node.agent_api(), || node.ctl("node status"))
        .with_context(|| node.name().to_owned())
}

/// Who owns an address and in which epoch, as `fip list` says; an empty name where nobody does.
pub fn owner(node: &Node, floating: &str) -> Result<(String, u64)> {
    owner_in(&node.ctl("fip list -o json")?, floating)
}

/// The same by the text of a list.
pub fn owner_in(list: &str, floating: &str) -> Result<(String, u64)> {
    let row = row(list, floating)?;
    let epoch = row["epoch"]
        .as_u64()
        .with_context(|| format!("no epoch: {row}"))?;
    Ok((row["owner"].as_str().unwrap_or_default().to_owned(), epoch))
}

/// The row of `fip list` for an address.
pub fn listed(node: &Node, floating: &str) -> Result<Value> {
    row(&node.ctl("fip list -o json")?, floating)
}

fn row(list: &str, floating: &str) -> Result<Value> {
    let rows: Vec<Value> = serde_json::from_str(list)?;
    rows.into_iter()
        .find(|row| row["address"] == floating)
        .with_context(|| format!("{floating} is not listed"))
}
