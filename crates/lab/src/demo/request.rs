//! Step 1: pools, a fixed address, floating IPs, and a refusal.

use anyhow::{Result, ensure};

use super::{FIXED, FLOATING, NAMESPACE, Stage};
use crate::lab::POOLS;
use crate::workload::{Spec, Workload};

pub(super) fn tell(stage: &mut Stage) -> Result<()> {
    stage
        .story
        .step(1, "A pod gets the address it asked for, and floating IPs")?;
    let took = stage.lab.node.start_agent()?;
    stage
        .story
        .timed("buoy-agent is ready on an empty node with an empty store", took)?;
    let applied = stage.lab.node.apply(POOLS)?;
    stage.story.command("buoyctl apply -f pools.yaml", &applied)?;
    stage.show_ctl("get ippool")?;
    attach_first(stage)?;
    refuse_second(stage)
}

fn attach_first(stage: &mut Stage) -> Result<()> {
    stage
        .story
        .say("Pod web-0 asks by annotations, as with Calico:")?;
    stage
        .story
        .command("cat web-0.yaml", &annotations(&FIXED, &FLOATING))?;
    let spec = Spec::pod(NAMESPACE, "web-0").fixed(&FIXED).floating(&FLOATING);
    let mut web = Workload::prepare(&stage.lab.node, spec)?;
    let answered = web.add()?;
    let took = answered.took;
    answered.ok()?;
    let own: Vec<String> = web.addresses().iter().map(ToString::to_string).collect();
    ensure!(own == FIXED, "the pod asked for {FIXED:?} and has {own:?}");
    stage.story.timed(
        &format!("CNI ADD: eth0 in the pod has {} and {}", FIXED[0], FIXED[1]),
        took,
    )?;
    web.serve()?;
    stage.workloads.insert("web-0".to_owned(), web);
    Ok(())
}

fn refuse_second(stage: &mut Stage) -> Result<()> {
    stage
        .story
        .say("Another pod asks for the same fixed address, and is told who has it:")?;
    let spec = Spec::pod(NAMESPACE, "thief").fixed(&FIXED[..1]);
    let mut thief = Workload::prepare(&stage.lab.node, spec)?;
    let refusal = thief.add()?.refusal()?;
    let said = format!("CNI error {}: {}\n{}", refusal.code, refusal.msg, refusal.details);
    stage.story.command("calico ADD thief", said.trim())?;
    ensure!(said.contains(FIXED[0]), "the refusal does not name {}", FIXED[0]);
    thief.del()?.ok()?;
    stage.story.check("refused, with nothing left behind")
}

/// The part of a pod's manifest that matters here.
fn annotations(fixed: &[&str], floating: &[&str]) -> String {
    let list = |ips: &[&str]| serde_json::json!(ips).to_string();
    format!(
        "annotations:\n  cni.projectcalico.org/ipAddrs: '{}'\n  cni.projectcalico.org/floatingIPs: '{}'",
        list(fixed),
        list(floating)
    )
}
