//! `node status` and `node plan`: what the agent of this node says of itself.

use buoy_cni_spec::agent::Inspect;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::agent::{Agent, read};
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::table::Table;

/// The agent's condition.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    node: String,
    version: String,
    datastore: String,
    synced: bool,
    health: Json,
    not_ready: Option<Vec<String>>,
    routing: String,
    network_policy: String,
    endpoints: u64,
    floating: Floating,
    lease: String,
    bgp: Option<Bgp>,
    notes: Vec<String>,
    problems: Vec<String>,
}

/// BGP sessions, where the agent has a routing daemon.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bgp {
    ipv4: Vec<Session>,
    ipv6: Vec<Session>,
}

/// A BGP session.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Session {
    peer: String,
    #[serde(rename = "type")]
    kind: String,
    state: String,
    since: String,
    info: String,
}

/// Floating IPs of workloads of the node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Floating {
    owned: u64,
    unconfirmed: u64,
    standby: u64,
    refused: u64,
}

/// What the agent would do now.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Plan {
    operations: Vec<String>,
}

/// Shows the agent's condition.
pub(crate) fn status(agent: &Agent, format: Format) -> Result<Output, Failure> {
    let document = agent.inspect(Inspect::NodeStatus)?;
    let status: Status = read(document.clone())?;
    Output::render(format, &document, || status_text(&status))
}

/// Shows what the agent would do now.
pub(crate) fn plan(agent: &Agent, format: Format) -> Result<Output, Failure> {
    let document = agent.inspect(Inspect::Plan)?;
    let plan: Plan = read(document.clone())?;
    Output::render(format, &document, || plan_text(&plan))
}

fn status_text(status: &Status) -> String {
    let health = match &status.health {
        Json::String(text) => text.clone(),
        Json::Null => "unknown".to_owned(),
        other => other.to_string(),
    };
    let synced = if status.synced { "in step" } else { "not read yet" };
    let Floating {
        owned,
        unconfirmed,
        standby,
        refused,
    } = status.floating;
    let mut lines = vec![
        format!("Node:           {}", status.node),
        format!("Agent:          {}", status.version),
        format!("Health:         {health}"),
        format!("Ready:          {}", ready_text(status.not_ready.as_deref())),
        format!("Datastore:      {} ({synced})", status.datastore),
        format!("Workloads:      {}", status.endpoints),
        format!("Floating IPs:   {owned} owned, {standby} standing by, {refused} refused"),
    ];
    if unconfirmed > 0 {
        lines.push(format!("Unconfirmed:    {unconfirmed} of the owned"));
    }
    let more = [
        ("Lease", &status.lease),
        ("Routing", &status.routing),
        ("NetworkPolicy", &status.network_policy),
    ];
    for (name, value) in more.into_iter().filter(|(_, value)| !value.is_empty()) {
        lines.push(format!("{:<15} {value}", format!("{name}:")));
    }
    if !status.notes.is_empty() {
        lines.push("Notes:".to_owned());
        lines.extend(status.notes.iter().map(|note| item(note)));
    }
    if status.problems.is_empty() {
        lines.push("Problems:       none".to_owned());
    } else {
        lines.push("Problems:".to_owned());
        lines.extend(status.problems.iter().map(|problem| item(problem)));
    }
    if let Some(bgp) = &status.bgp {
        lines.push(sessions_text("IPv4", &bgp.ipv4));
        lines.push(sessions_text("IPv6", &bgp.ipv6));
    }
    lines.join("\n")
}

/// Whether the agent is ready, and all that keeps it from being so.
fn ready_text(reasons: Option<&[String]>) -> String {
    match reasons {
        None => "unknown".to_owned(),
        Some([]) => "yes".to_owned(),
        Some(reasons) => {
            let reasons: Vec<String> = reasons.iter().map(|reason| item(reason)).collect();
            format!("no\n{}", reasons.join("\n"))
        }
    }
}

/// An item of a list, its hint set in below it.
fn item(text: &str) -> String {
    format!("  - {}", text.replace('\n', "\n    "))
}

/// Sessions of a family, as calicoctl shows them.
fn sessions_text(family: &str, sessions: &[Session]) -> String {
    let heading = format!("\n{family} BGP status");
    if sessions.is_empty() {
        return format!("{heading}\nNo {family} peers found.");
    }
    let mut table = Table::new(&["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"]);
    for session in sessions {
        table.row([
            session.peer.clone(),
            session.kind.clone(),
            session.state.clone(),
            session.since.clone(),
            session.info.clone(),
        ]);
    }
    format!("{heading}\n{}", table.boxed().trim_end())
}

fn plan_text(plan: &Plan) -> String {
    if plan.operations.is_empty() {
        return "nothing to do: the node is as it should be".to_owned();
    }
    plan.operations.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_reads_like_a_page() {
        let status = serde_json::from_value(json!({
            "node": "n1", "version": "0.1.0", "datastore": "sqlite:///b.db", "synced": true, "health": "ok",
            "notReady": ["routing: BIRD is starting\nlook into bird.log", "no contact"],
            "endpoints": 3, "floating": {"owned": 2, "unconfirmed": 1, "standby": 1, "refused": 1},
            "routing": "kernel", "networkPolicy": "not enforced",
            "problems": ["record does not decode: IPPool p\nmend it"], "later": 1,
        }));
        assert_eq!(
            status_text(&status.unwrap()),
            "\
Node:           n1
Agent:          0.1.0
Health:         ok
Ready:          no
  - routing: BIRD is starting
    look into bird.log
  - no contact
Datastore:      sqlite:///b.db (in step)
Workloads:      3
Floating IPs:   2 owned, 1 standing by, 1 refused
Unconfirmed:    1 of the owned
Routing:        kernel
NetworkPolicy:  not enforced
Problems:
  - record does not decode: IPPool p
    mend it"
        );
        let fresh = status_text(&Status::default());
        assert!(
            fresh.contains("Health:         unknown\nReady:          unknown\n") && fresh.ends_with("none"),
            "{fresh}"
        );
    }

    #[test]
    fn sessions_are_shown_as_calicoctl_does() {
        let status = serde_json::from_value(json!({
            "notes": ["nodes differ\nsee to it"],
            "bgp": {"ipv4": [{"peer": "192.0.2.2", "type": "node-to-node mesh", "state": "up",
                              "since": "2026-11-26T22:05:18", "info": "Established"}], "ipv6": []},
        }));
        let text = status_text(&status.unwrap());
        let (_, shown) = text.split_once("Notes:").unwrap();
        assert_eq!(
            shown,
            "
  - nodes differ
    see to it
Problems:       none

IPv4 BGP status
+--------------+-------------------+-------+---------------------+-------------+
| PEER ADDRESS |     PEER TYPE     | STATE |        SINCE        |    INFO     |
+--------------+-------------------+-------+---------------------+-------------+
| 192.0.2.2    | node-to-node mesh | up    | 2026-11-26T22:05:18 | Established |
+--------------+-------------------+-------+---------------------+-------------+

IPv6 BGP status
No IPv6 peers found."
        );
    }

    #[test]
    fn a_plan_is_its_operations() {
        assert_eq!(
            plan_text(&Plan::default()),
            "nothing to do: the node is as it should be"
        );
        let operations = vec!["put route".to_owned(), "end flows".to_owned()];
        assert_eq!(plan_text(&Plan { operations }), "put route\nend flows");
    }
}
