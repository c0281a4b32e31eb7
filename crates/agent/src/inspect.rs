//! Answers to people: what would be done, why an address is where it is, how the node is.
//!
//! Nothing is decided here. What is said is read from the rows, the records and the failures.

mod glance;
mod lease;
mod routing;

use std::net::IpAddr;

use buoy_api::FloatingIp;
use buoy_api::binding::{Binding, Target};
use buoy_core::desired::{Hop, Row, RowKey};
use buoy_core::endpoint::Attachment;
use buoy_core::floating::decide::hold_ends;
use buoy_core::floating::standing::{Standing, standing};
use buoy_core::floating::{claim, collect};
use buoy_core::subject::Subject;
use buoy_core::time::Now;
use serde_json::{Value, json};

use crate::agent::Agent;

pub(crate) use glance::{Glance, glance};
#[cfg(test)]
pub(crate) use glance::{Lease, Requests};

/// What would be done now.
pub(crate) fn plan(agent: &Agent, now: Now) -> Value {
    let plan = agent.network.whole_plan(&agent.view, now.mono);
    let operations: Vec<String> = plan.ops.iter().map(ToString::to_string).collect();
    json!({"operations": operations})
}

/// One thing that is known, and of whom.
fn fact(subject: impl ToString, says: impl ToString) -> Value {
    json!({"subject": subject.to_string(), "says": says.to_string()})
}

/// What is known about an address.
pub(crate) fn why(agent: &Agent, ip: IpAddr, now: Now) -> Value {
    let mut facts = Vec::new();
    let own = agent
        .view
        .attachments()
        .find(|a| !a.is_leaving() && a.own_addresses().any(|own| own == ip));
    let answer = match (FloatingIp::try_from(ip), own) {
        (_, Some(attachment)) => {
            facts.extend(own_facts(agent, attachment));
            format!("{ip} is the own address of {} on this node", attachment.endpoint)
        }
        (Ok(floating), None) => {
            facts.extend(floating_facts(agent, floating, now));
            floating_answer(agent, floating, now)
        }
        (Err(error), None) => error.to_string(),
    };
    json!({"address": ip.to_string(), "answer": answer, "facts": facts})
}

fn own_facts(agent: &Agent, attachment: &Attachment) -> Vec<Value> {
    rows_of(agent, &Subject::Endpoint(attachment.endpoint.clone()))
}

fn floating_answer(agent: &Agent, floating: FloatingIp, now: Now) -> String {
    let Some(binding) = agent.view.bindings.get(&floating) else {
        let asked = agent.view.asking(floating).next().is_some();
        return match agent.work.failure(&Subject::Binding(floating)) {
            Some(failure) => format!("{floating} could not be claimed: {}", failure.error),
            None if asked => format!("{floating} is asked for, and nobody may have it now"),
            None => format!(
                "{floating} is not in use: no workload of this node asks for it and no namespace holds it"
            ),
        };
    };
    match (&binding.spec.owner, &binding.spec.offer) {
        (Some(owner), _) => format!(
            "{floating} fronts {}/{} ({}) on node {}: epoch {}",
            binding.spec.namespace, owner.workload, owner.internal_ip, owner.node, binding.spec.epoch.0
        ),
        (None, Some(offer)) => format!("{floating} is on its way to {}", target(&offer.to)),
        (None, None) => format!("{floating} fronts nobody: {}", held(agent, binding, now)),
    }
}

fn target(to: &Target) -> String {
    match &to.node {
        Some(node) => format!("{} on node {node}", to.workload),
        None => to.workload.clone(),
    }
}

fn held(agent: &Agent, binding: &Binding, now: Now) -> String {
    let until = hold_ends(binding, agent.view.settings.hold);
    if until <= now.wall {
        return format!(
            "its hold for namespace {} is over, and it is about to be freed",
            binding.spec.namespace
        );
    }
    format!("held for namespace {} until {until:.0}", binding.spec.namespace)
}

fn floating_facts(agent: &Agent, floating: FloatingIp, now: Now) -> Vec<Value> {
    let mut facts = Vec::new();
    if let Some(bad) = agent.view.bad.get(&claim::binding_key(floating)) {
        facts.push(fact("binding", bad));
    }
    if let Some(block) = agent.view.block_of(floating.addr())
        && collect::reservation(&agent.view, floating).is_some()
    {
        facts.push(fact("IPAM", format!("reserved in block {}", block.cidr)));
    }
    if agent
        .view
        .asking(floating)
        .any(|endpoint| standing(&agent.view, endpoint, floating) == Standing::Undecided)
    {
        facts.extend(lease::obstacle(agent, now));
    }
    for endpoint in agent.view.asking(floating) {
        let says = match standing(&agent.view, endpoint, floating) {
            Standing::Owner => "asks for it and has it".to_owned(),
            Standing::Standby { node, workload } => {
                format!("asks for it and stands by for {workload} on {node}")
            }
            Standing::Refused(refusal) => format!("asks for it and is refused: {refusal}"),
            Standing::Undecided => "asks for it; not decided yet".to_owned(),
        };
        facts.push(fact(format!("endpoint {endpoint}"), says));
    }
    if let Some(failure) = agent.work.failure(&Subject::Binding(floating)) {
        facts.push(fact("datastore", &failure.error));
    }
    let lost = agent.view.lost_by_restore().find(|(lost, _)| *lost == floating);
    if lost.is_some() {
        facts.push(fact(
            "restore",
            "was this node's before the datastore was restored from a copy",
        ));
    }
    facts.extend(lease::facts(agent, floating, now));
    facts.extend(rows_of(agent, &Subject::Binding(floating)));
    facts
}

/// The rows that are there because of a subject, and whether the kernel has them.
fn rows_of(agent: &Agent, subject: &Subject) -> Vec<Value> {
    let desired = agent.network.desired();
    let mine = desired
        .keys_of(subject)
        .filter_map(|key| Some((key, desired.get(key)?)));
    let mine = mine.filter(|(_, (_, because))| *because == subject);
    mine.map(|(key, (row, because))| fact(because, format!("{}: {}", row_text(row), state(agent, key))))
        .collect()
}

fn row_text(row: &Row) -> String {
    match row {
        Row::Sysctl(path, value) => format!("sysctl {path} is {value}"),
        Row::Link(name, _) => format!("link {name}"),
        Row::Route(key, Hop::Link(name)) => format!("route {} dev {name} metric {}", key.prefix, key.metric),
        Row::Route(key, Hop::Unreachable) => {
            format!("route unreachable {} metric {}", key.prefix, key.metric)
        }
        Row::Nat(floating, nat) => format!("{floating} is translated to {}", nat.internal),
        Row::Bird(section, row) => format!("{section}: {row}"),
    }
}

fn state(agent: &Agent, key: &RowKey) -> String {
    if let Some(trouble) = agent.network.trouble(key) {
        return format!("not programmed: {}", trouble.error.message);
    }
    let observed = agent.network.observed();
    let there = match key {
        RowKey::Sysctl(path) => observed.sysctls.contains_key(path),
        RowKey::Link(name) => observed.index_of(name).is_some(),
        RowKey::Route(key) => observed.routes.contains_key(key),
        RowKey::Nat(floating) => observed.nat.contains_key(floating),
        RowKey::Bird(_) => observed.bird.is_some(),
    };
    if there { "programmed" } else { "not programmed yet" }.to_owned()
}

/// How the node is.
pub(crate) fn status(agent: &Agent, now: Now) -> Value {
    let requests = glance::requests(agent, now.mono);
    let health = match &agent.contact.lost {
        Some(lost) => format!("no contact: {}", lost.error),
        None if agent.view.is_held() => restored(agent, now),
        None if agent.contact.synced => "in contact".to_owned(),
        None => "not read yet".to_owned(),
    };
    json!({
        "node": agent.settings.node_name,
        "version": crate::VERSION,
        "datastore": agent.settings.datastore,
        "synced": agent.contact.synced,
        "health": health,
        "routing": routing::summary(agent),
        "bgp": routing::sessions(agent),
        "notes": routing::notes(agent),
        "networkPolicy": "not enforced",
        "endpoints": glance::workloads(agent),
        "floating": {
            "owned": requests.owned,
            "unconfirmed": requests.unconfirmed,
            "standby": requests.standby + requests.undecided,
            "refused": requests.refused,
        },
        "notReady": glance::unready(agent, now),
        "lease": lease::own(agent, now),
        "problems": problems(agent, now),
    })
}

fn restored(agent: &Agent, now: Now) -> String {
    let until = match agent.view.held_until() {
        Some(until) => format!("for {} s", until.since(now.mono).as_secs() + 1),
        None => "before it was read".to_owned(),
    };
    format!("in contact; it was restored from a copy: nothing is allocated {until}")
}

fn problems(agent: &Agent, now: Now) -> Vec<String> {
    let bad = agent.view.bad.iter().map(|(key, bad)| format!("{key}: {bad}"));
    let work = agent
        .work
        .failures()
        .map(|(subject, failure)| format!("{subject}: {}", failure.error));
    let rows = agent
        .network
        .troubles()
        .map(|(key, trouble)| format!("{key}: {}", trouble.error.message));
    let lost = agent.view.lost_by_restore().map(|(floating, owner)| {
        format!("{floating}: was this node's before the datastore was restored, and is of {owner} now")
    });
    let twin = agent.view.truce(now.mono).map(|_| {
        format!(
            "Node {}: somebody writes over this record again and again\nif it is another agent: name the nodes differently",
            agent.settings.node_name
        )
    });
    bad.chain(twin)
        .chain(work)
        .chain(rows)
        .chain(lost)
        .chain(routing::problems(agent))
        .collect()
}
