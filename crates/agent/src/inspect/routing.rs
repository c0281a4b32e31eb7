//! The routing daemon and its sessions, for people.

use std::collections::{BTreeMap, BTreeSet};

use buoy_api::ip::Family;
use buoy_core::bird::{BirdRow, Section, Session, Side, symbols};
use buoy_core::calc;
use buoy_core::view::Daemon;
use serde_json::{Value, json};

use crate::adapters::bird::{Report, Session as Shown};
use crate::agent::Agent;

/// Who announces routes, and whether he does.
pub(super) fn summary(agent: &Agent) -> String {
    let Some(report) = &agent.report else {
        return match &agent.view.daemon {
            Daemon::Ready => "kernel".to_owned(),
            Daemon::NotReady { why, .. } => why.clone(),
        };
    };
    let version = report.version.as_deref().map(|version| format!(" {version}"));
    let how = match &agent.view.daemon {
        Daemon::Ready => "ready".to_owned(),
        Daemon::NotReady { why, .. } => why.clone(),
    };
    format!("BIRD{}: {how}", version.unwrap_or_default())
}

/// Sessions by family, as tables. None where somebody else has the routing daemon.
pub(super) fn sessions(agent: &Agent) -> Value {
    let desired = agent.network.desired();
    if desired.bird().next().is_none() {
        return Value::Null;
    }
    let shown = agent.report.as_ref().map(by_symbol).unwrap_or_default();
    let rows: BTreeMap<&Section, &BirdRow> = desired.bird().map(|(section, row, _)| (section, row)).collect();
    let mut tables = Family::ALL.map(|_| Vec::new());
    for (symbol, section) in symbols(rows.keys().copied()) {
        if let Some(BirdRow::Session(session)) = rows.get(section) {
            let table = usize::from(session.family() == Family::V6);
            tables[table].push(line(agent, section, session, shown.get(symbol.as_str()).copied()));
        }
    }
    let [v4, v6] = tables;
    json!({"ipv4": v4, "ipv6": v6})
}

fn by_symbol(report: &Report) -> BTreeMap<&str, &Shown> {
    let sessions = report.sessions.iter();
    sessions
        .map(|session| (session.symbol.as_str(), session))
        .collect()
}

fn line(agent: &Agent, section: &Section, session: &Session, shown: Option<&Shown>) -> Value {
    let unknown = Shown {
        state: "down".to_owned(),
        info: "BIRD does not know it yet".to_owned(),
        ..Shown::default()
    };
    let shown = shown.unwrap_or(&unknown);
    json!({
        "peer": session.remote.to_string(),
        "type": kind(agent, section),
        "state": shown.state,
        "since": shown.since,
        "info": match hint(session, shown) {
            Some(hint) => format!("{}: {hint}", shown.info),
            None => shown.info.clone(),
        },
    })
}

/// What a session suffers from of which the daemon does not speak.
fn hint(session: &Session, shown: &Shown) -> Option<&'static str> {
    if session.side == Side::External && shown.filtered > 0 {
        return Some("announces prefixes of our pools, which are not taken");
    }
    // A kernel drops what is not signed by the password it knows, and says nothing: who waits in vain cannot tell that from
    // a peer that is not there.
    let waits = matches!(shown.info.as_str(), "Connect" | "Active");
    (waits && session.password.is_some())
        .then_some("no answer, which a wrong password looks like: check that it is the peer's, too")
}

/// As calicoctl calls it.
fn kind(agent: &Agent, section: &Section) -> &'static str {
    match section {
        Section::Peer(name) => match agent.view.peers.get(name) {
            Some(peer) if peer.spec.node.is_empty() && peer.spec.node_selector.is_empty() => "global",
            _ => "node specific",
        },
        _ => "node-to-node mesh",
    }
}

/// Why the daemon does not do its work, and sessions that were left out.
pub(super) fn problems(agent: &Agent) -> Vec<String> {
    let daemon = match &agent.view.daemon {
        Daemon::Ready => None,
        Daemon::NotReady { why, .. } => Some(format!("routing: {why}")),
    };
    let left_out = agent
        .network
        .desired()
        .bird()
        .filter_map(|(section, row, _)| match row {
            BirdRow::LeftOut(why) => Some(format!("{section}: left out: {why}")),
            _ => None,
        });
    daemon.into_iter().chain(left_out).collect()
}

/// What is as it was asked for, and may surprise.
pub(super) fn notes(agent: &Agent) -> Vec<String> {
    if agent.network.desired().bird().next().is_none() {
        return Vec::new();
    }
    let numbers: BTreeSet<u32> = agent
        .view
        .nodes
        .values()
        .map(|node| calc::as_number(&agent.view, node))
        .collect();
    if numbers.len() < 2 {
        return Vec::new();
    }
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    vec![format!(
        "nodes have different AS numbers: {}\nexternal routers do not compare their MEDs: of two announcements of one address they may prefer the older",
        numbers.join(", ")
    )]
}
