//! Steps 2 and 3: everybody reaches the floating IP, by any protocol: the client, the pod itself, its neighbour, the node.

use anyhow::{Context, Result, ensure};

use super::{FIXED, FLOATING, NAMESPACE, SOON, Stage, ip};
use crate::lab::CLIENT;
use crate::probe::{self, RawProtocol, Via};
use crate::workload::{Spec, Workload};

pub(super) fn tell(stage: &mut Stage) -> Result<()> {
    stage
        .story
        .step(2, "The client reaches the floating IP, by any protocol")?;
    let mut ways = vec![Via::Ping, Via::Tcp, Via::Udp];
    ways.extend(RawProtocol::ALL.map(Via::Raw));
    for (floating, client) in FLOATING.into_iter().zip(CLIENT) {
        for via in &ways {
            let answer = stage.ask(*via, floating)?;
            if *via != Via::Ping {
                ensure!(
                    answer.who == "web-0",
                    "{} is answered by {}",
                    floating,
                    answer.who
                );
                ensure!(
                    answer.saw == Some(ip(client)?),
                    "the pod saw {:?}, not the client's {client}",
                    answer.saw
                );
            }
        }
        let names: Vec<&str> = ways.iter().map(|via| via.name()).collect();
        stage
            .story
            .check(&format!("{floating} answers: {}", names.join(", ")))?;
        stage
            .story
            .check(&format!("the pod sees the client's real address {client}"))?;
    }
    show_how(stage)
}

/// The NAT map, the route, the explanation.
fn show_how(stage: &mut Stage) -> Result<()> {
    stage
        .story
        .say("How: one map from floating to internal address, one route, no rule per address.")?;
    let map = stage.show_on_node("nft list map ip buoy fips")?;
    let element = format!("{} : {}", FLOATING[0], FIXED[0]);
    ensure!(map.contains(&element), "the NAT map lacks {element}");
    let route = stage.show_on_node(&format!("ip route show {}", FLOATING[0]))?;
    ensure!(route.contains("cali"), "no route leads {} to a pod", FLOATING[0]);
    let why = stage.show_ctl(&format!("fip why {}", FLOATING[0]))?;
    ensure!(why.contains("web-0"), "'why' does not name the owner");
    stage.story.check("map, route and explanation agree")
}

/// Step 3.
pub(super) fn tell_inside(stage: &mut Stage) -> Result<()> {
    stage
        .story
        .step(3, "The pod itself, its neighbour and the node call it too")?;
    let neighbour = Workload::start(&stage.lab.node, Spec::pod(NAMESPACE, "neighbour"))?;
    stage.workloads.insert("neighbour".to_owned(), neighbour);
    let callers = [
        (
            "the pod calls its own floating IPs",
            stage.workload("web-0")?.netns().clone(),
        ),
        (
            "a neighbour on the same node",
            stage.workload("neighbour")?.netns().clone(),
        ),
        ("a process on the node", stage.lab.node.netns().clone()),
    ];
    for (who, netns) in callers {
        for floating in FLOATING {
            for via in [Via::Ping, Via::Tcp, Via::Udp] {
                let answer = probe::ask(&netns, via, ip(floating)?, SOON).with_context(|| who.to_owned())?;
                ensure!(
                    via == Via::Ping || answer.who == "web-0",
                    "{who}: answered by {}",
                    answer.who
                );
            }
        }
        stage
            .story
            .check(&format!("{who}: ping, TCP, UDP, in IPv4 and IPv6"))?;
    }
    Ok(())
}
