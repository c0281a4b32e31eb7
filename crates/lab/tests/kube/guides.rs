//! Calico's how-to guides on a real Kubernetes, with a client beyond an external router.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::{answered_by, silent};
use buoy_lab::kube::{Buoy, Case, Cluster, Cni, Gate, Manifest, Options, Pod};
use buoy_lab::probe::{self, RawProtocol, Via};
use buoy_lab::traffic::Traffic;

use crate::owners::{another, drain};
use crate::service::reached;
use crate::{fixed, owners, service};

/// What `make test` runs too, for it is named so: Buoy is installed as an operator does, and each guide is followed once.
#[test]
fn core_of_the_guides() {
    Cluster::start(&without_network())
        .unwrap()
        .test(|cluster| cases(cluster, as_an_operator, &CORE));
}

/// The rest: what follows from the guides, and what goes wrong. Agents are processes, which can be frozen and killed.
#[test]
fn what_follows_from_the_guides() {
    Cluster::start(&without_network())
        .unwrap()
        .test(|cluster| cases(cluster, as_processes, &FURTHER));
}

/// Guide 1: *Add a floating IP to a pod*; guide 2: *Use a specific IP address with a pod*.
const CORE: [Case; 4] = [
    ("floating-ip", floating_ip),
    ("fixed-ip", fixed::fixed_ip),
    ("owner-deleted", owners::owner_deleted),
    ("live-edit", live_edit),
];

const FURTHER: [Case; 16] = [
    ("dual-stack", dual_stack),
    ("floating-ip-needs-the-gate", floating_ip_needs_the_gate),
    ("floating-ip-outside-pools", floating_ip_outside_pools),
    ("several-floating-ips", several_floating_ips),
    ("two-namespaces", two_namespaces),
    ("fixed-ip-refused", fixed::refused),
    ("fixed-ip-recreate", fixed::recreate),
    ("fixed-ip-rolling-update", fixed::rolling_update),
    ("malformed", malformed),
    ("stateful-set", stateful_set),
    ("host-port-and-service", service::host_port_and_service),
    ("sandbox-restarted", sandbox_restarted),
    ("faults", faults),
    ("owner-unready-or-drained", owners::owner_unready_or_drained),
    ("checker", checker_finds),
    // The last: the node does not come back.
    ("node-dies", owners::node_dies),
];

fn without_network() -> Options {
    Options {
        cni: Cni::None,
        ..Options::default()
    }
}

fn cases(cluster: &Cluster, install: fn(&Cluster) -> Result<Buoy<'_>>, cases: &[Case]) -> Result<()> {
    let begun = Instant::now();
    cluster.import_server()?;
    let buoy = install(cluster)?;
    eprintln!("Buoy is there after {:.1?}", begun.elapsed());
    cluster.cases(&buoy, cases)
}

fn as_processes(cluster: &Cluster) -> Result<Buoy<'_>> {
    Buoy::install(cluster, Gate::Open)
}

/// Floating IPs are off, until the ConfigMap says otherwise, as Calico's guide has it.
fn as_an_operator(cluster: &Cluster) -> Result<Buoy<'_>> {
    let buoy = Buoy::install_as_operator(cluster)?;
    let manifest = Manifest::new("default", "web-0").floating(&["172.16.1.9"]);
    cluster.apply(&manifest.pod().to_string())?;
    let said = cluster.wait_for_event("default", "web-0", "feature is not enabled: floating_ips")?;
    eprintln!("  {said}");
    cluster.switch_floating_ips_on()?;
    cluster.wait_for_pod("default", "web-0")?;
    reached(cluster, "172.16.1.9", "web-0")?;
    Ok(buoy)
}

fn floating_ip(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    fronted(cluster, here, &["172.16.1.10"])
}

/// Where the network gives pods addresses of both families.
fn dual_stack(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    fronted(cluster, here, &["172.16.1.11", "fd16::11"])
}

/// A pod is reached by its floating IPs by ICMP, TCP, UDP and raw protocols, and by its own addresses.
fn fronted(cluster: &Cluster, here: &str, floating: &[&str]) -> Result<()> {
    let manifest = Manifest::new(here, "web-0").floating(floating);
    cluster.apply(&manifest.pod().to_string())?;
    let pod = cluster.wait_for_pod(here, "web-0")?;
    for address in floating {
        reached(cluster, address, &pod.name)?;
        for protocol in RawProtocol::ALL {
            answered_by(&cluster.client, Via::Raw(protocol), address, "web-0")?;
        }
    }
    for address in &pod.addresses {
        reached(cluster, &address.to_string(), &pod.name)?;
    }
    Ok(())
}

fn floating_ip_needs_the_gate(cluster: &Cluster, buoy: &Buoy<'_>, here: &str) -> Result<()> {
    buoy.set_gate("n3", Gate::Shut)?;
    let manifest = Manifest::new(here, "web-0").floating(&["172.16.1.20"]).on("n3");
    cluster.apply(&manifest.pod().to_string())?;
    let said = cluster.wait_for_event(here, "web-0", "feature is not enabled: floating_ips")?;
    eprintln!("  {said}");
    buoy.set_gate("n3", Gate::Open)?;
    cluster.wait_for_pod(here, "web-0")?;
    reached(cluster, "172.16.1.20", "web-0")
}

fn floating_ip_outside_pools(cluster: &Cluster, buoy: &Buoy<'_>, here: &str) -> Result<()> {
    let manifest = Manifest::new(here, "web-0").floating(&["172.31.1.1"]);
    cluster.apply(&manifest.pod().to_string())?;
    cluster.wait_for_pod(here, "web-0")?;
    let why = buoy.ctl("fip why 172.31.1.1")?;
    ensure!(why.contains("pool"), "{why}");
    let said = cluster.wait_for_event(here, "web-0", "floating IP 172.31.1.1 is refused")?;
    eprintln!("  {said}");
    probe::nobody_answers(
        &cluster.client,
        Via::Udp,
        "172.31.1.1".parse()?,
        Duration::from_millis(300),
    )
}

fn several_floating_ips(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    let addresses = ["172.16.1.110", "172.16.1.111", "fd16::110", "fd16::111"];
    let manifest = Manifest::new(here, "web-0").floating(&addresses);
    cluster.apply(&manifest.pod().to_string())?;
    cluster.wait_for_pod(here, "web-0")?;
    addresses
        .iter()
        .try_for_each(|address| reached(cluster, address, "web-0"))
}

/// Who comes second runs without the address, and is told whose it is.
fn two_namespaces(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    let floating = "172.16.1.100";
    let there = format!("{here}-other");
    cluster.namespace(&there)?;
    for (namespace, name) in [(here, "first"), (&there, "second")] {
        let pod = Manifest::new(namespace, name).floating(&[floating]).pod();
        cluster.apply(&pod.to_string())?;
        cluster.wait_for_pod(namespace, name)?;
        reached(cluster, floating, "first")?;
    }
    let said = cluster.wait_for_event(&there, "second", &format!("owned in another namespace: {here}"))?;
    eprintln!("  {said}");
    Ok(())
}

/// Another address, something that is no list, none.
fn live_edit(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    cluster.apply(&Manifest::new(here, "web-0").pod().to_string())?;
    let pod = cluster.wait_for_pod(here, "web-0")?;
    annotate(cluster, &pod, "floatingIPs=[\"172.16.1.30\"]")?;
    reached(cluster, "172.16.1.30", "web-0")?;
    annotate(cluster, &pod, "floatingIPs=[\"172.16.1.31\"]")?;
    reached(cluster, "172.16.1.31", "web-0")?;
    silent(&cluster.client, "172.16.1.30")?;
    let refused = annotate(cluster, &pod, "floatingIPs=no list");
    let said = refused.err().context("what is no list was taken")?;
    ensure!(format!("{said:#}").contains("not a JSON list"), "{said:#}");
    reached(cluster, "172.16.1.31", "web-0")?;
    annotate(cluster, &pod, "floatingIPs-")?;
    silent(&cluster.client, "172.16.1.31")?;
    ensure!(cluster.pod(here, "web-0")?.uid == pod.uid, "the pod was replaced");
    Ok(())
}

/// Where no policy refuses it: what cannot be read changes nothing, is said, and keeps no pod from being deleted.
fn malformed(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    let manifest = Manifest::new(here, "web-0").floating(&["172.16.1.32"]);
    cluster.apply(&manifest.pod().to_string())?;
    let pod = cluster.wait_for_pod(here, "web-0")?;
    reached(cluster, "172.16.1.32", "web-0")?;
    annotate(cluster, &pod, "floatingIPs=no list")?;
    cluster.wait_for_event(here, "web-0", "not an IP address")?;
    reached(cluster, "172.16.1.32", "web-0")?;
    annotate(cluster, &pod, "floatingIPs-")?;
    silent(&cluster.client, "172.16.1.32")?;
    annotate(cluster, &pod, "floatingIPs=no list")?;
    cluster.api().delete(&pod.path())?;
    cluster.wait_until_gone(&pod)
}

/// `kubectl annotate` of a pod, by one of Calico's annotations.
pub(crate) fn annotate(cluster: &Cluster, pod: &Pod, text: &str) -> Result<()> {
    let annotation = format!("cni.projectcalico.org/{text}");
    let words = [
        "annotate",
        "--overwrite",
        "-n",
        &pod.namespace,
        "pod",
        &pod.name,
        &annotation,
    ];
    cluster.try_kubectl(&words, "")?.ok().map(drop)
}

fn stateful_set(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    let manifest = Manifest::new(here, "db")
        .fixed(&["10.65.10.1"])
        .floating(&["172.16.1.40"]);
    cluster.apply(&manifest.stateful_set(1).to_string())?;
    let first = cluster.wait_for_pod(here, "db-0")?;
    reached(cluster, "172.16.1.40", "db-0")?;
    cluster.kubectl(&format!("rollout restart -n {here} statefulset/db"))?;
    let second = another(cluster, here, &first)?;
    for address in ["10.65.10.1", "172.16.1.40"] {
        reached(cluster, address, "db-0")?;
    }
    drain(cluster, &second.node)?;
    let third = another(cluster, here, &second)?;
    cluster.kubectl(&format!("uncordon {}", second.node))?;
    ensure!(third.node != second.node, "it is on the node that was drained");
    for address in ["10.65.10.1", "172.16.1.40"] {
        reached(cluster, address, "db-0")?;
    }
    Ok(())
}

/// The process that holds a pod's namespaces ends: the kubelet makes a new sandbox for the same pod.
fn sandbox_restarted(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    let manifest = Manifest::new(here, "web-0")
        .fixed(&["10.65.11.1"])
        .floating(&["172.16.1.60"]);
    cluster.apply(&manifest.pod().to_string())?;
    let pod = cluster.wait_for_pod(here, "web-0")?;
    reached(cluster, "172.16.1.60", "web-0")?;
    cluster.node(&pod.node)?.kill_sandbox(&pod)?;
    cluster.wait_for_event(here, "web-0", "SandboxChanged")?;
    for address in ["10.65.11.1", "172.16.1.60"] {
        reached(cluster, address, "web-0")?;
    }
    ensure!(cluster.pod(here, "web-0")?.uid == pod.uid, "the pod was replaced");
    Ok(())
}

/// Each component killed or frozen in turn while clients talk to a floating IP: nothing is lost.
fn faults(cluster: &Cluster, buoy: &Buoy<'_>, here: &str) -> Result<()> {
    let floating = "172.16.1.90";
    cluster.apply(
        &Manifest::new(here, "web-0")
            .floating(&[floating])
            .pod()
            .to_string(),
    )?;
    let pod = cluster.wait_for_pod(here, "web-0")?;
    let node = cluster.node(&pod.node)?;
    let traffic = Traffic::start(&cluster.client, floating.parse()?)?;
    let control = &cluster.control;
    for component in [
        &node.kubelet,
        buoy.agent(&pod.node)?,
        &control.apiserver,
        &control.etcd,
    ] {
        let name = component.name();
        component.freeze()?;
        outlasts(&traffic).with_context(|| format!("{name} is frozen"))?;
        component.thaw()?;
        component.kill();
        outlasts(&traffic).with_context(|| format!("{name} was killed"))?;
        component.start()?;
    }
    node.freeze_containerd()?;
    outlasts(&traffic).context("containerd is frozen")?;
    node.thaw_containerd()?;
    node.kill_containerd();
    outlasts(&traffic).context("containerd was killed")?;
    node.start_containerd()?;
    control.wait_until_it_serves()?;
    cluster.wait_for_nodes()?;
    buoy.wait_for_sessions()?;
    for (via, tally) in traffic.unharmed()? {
        eprintln!("  {}: {tally}", via.name());
    }
    ensure!(cluster.pod(here, "web-0")?.uid == pod.uid, "the pod was replaced");
    // It can still be changed and taken down.
    annotate(cluster, &pod, "floatingIPs=[\"172.16.1.91\"]")?;
    reached(cluster, "172.16.1.91", "web-0")?;
    cluster.api().delete(&pod.path())?;
    cluster.wait_until_gone(&pod)
}

/// Traffic goes on for as long as it takes others to notice.
fn outlasts(traffic: &Traffic) -> Result<()> {
    std::thread::sleep(Duration::from_secs(1));
    traffic.progress()
}

/// The checker that looks at all of this does see what is wrong.
fn checker_finds(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    let floating = "172.16.1.95";
    let manifest = Manifest::new(here, "web-0").floating(&[floating]).on("n1");
    cluster.apply(&manifest.pod().to_string())?;
    cluster.wait_for_pod(here, "web-0")?;
    reached(cluster, floating, "web-0")?;
    cluster.check()?;
    // A route that is not Buoy's stays, whatever the agent thinks of it.
    let other = cluster.node("n3")?.netns();
    other.exec(&format!("ip route add blackhole {floating}"))?;
    let wrong = cluster.disagreements()?;
    other.exec(&format!("ip route delete blackhole {floating}"))?;
    let expected = format!("n3: {floating} goes by blackhole {floating}/32, not to n1");
    ensure!(wrong.contains(&expected), "{wrong:#?}");
    cluster.check()
}
