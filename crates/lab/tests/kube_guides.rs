//! Calico's how-to guides on a real Kubernetes, with a client beyond an external router.

#[path = "kube/service.rs"]
mod service;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::answered_by;
use buoy_lab::kube::{Buoy, Case, Cluster, Cni, Gate, Manifest, Options, Pod, UNREADY};
use buoy_lab::probe::{self, RawProtocol, Via};
use buoy_lab::traffic::{Traffic, Witnesses};
use service::reached;

/// Generous: a busy machine takes its time.
const SOON: Duration = Duration::from_secs(30);

/// A takeover of a dead node's address, on a busy machine.
const TAKEOVER: Duration = Duration::from_secs(60);

/// Guide 1: *Add a floating IP to a pod*; guide 2: *Use a specific IP address with a pod*; then what follows from them.
const CASES: [Case; 16] = [
    ("floating-ip", floating_ip),
    ("floating-ip-needs-the-gate", floating_ip_needs_the_gate),
    ("floating-ip-outside-pools", floating_ip_outside_pools),
    ("several-floating-ips", several_floating_ips),
    ("two-namespaces", two_namespaces),
    ("fixed-ip", fixed_ip),
    ("fixed-ip-refused", fixed_ip_refused),
    ("fixed-ip-recreate", fixed_ip_recreate),
    ("fixed-ip-rolling-update", fixed_ip_rolling_update),
    ("live-edit", live_edit),
    ("stateful-set", stateful_set),
    ("host-port-and-service", service::host_port_and_service),
    ("sandbox-restarted", sandbox_restarted),
    ("faults", faults),
    ("deployment-of-three", deployment_of_three),
    ("node-dies", node_dies),
];

#[test]
fn guides() {
    let options = Options {
        cni: Cni::None,
        ..Options::default()
    };
    let begun = Instant::now();
    Cluster::start(&options).unwrap().test(|cluster| {
        cluster.import_server()?;
        let buoy = Buoy::install(cluster, Gate::Open)?;
        eprintln!("cluster with Buoy after {:.1?}", begun.elapsed());
        cluster.cases(&buoy, &CASES)
    });
}

fn floating_ip(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    let manifest = Manifest::new(here, "web-0").floating(&["172.16.1.10", "fd16::10"]);
    cluster.apply(&manifest.pod().to_string())?;
    let pod = cluster.wait_for_pod(here, "web-0")?;
    for address in ["172.16.1.10", "fd16::10"] {
        reached(cluster, address, &pod.name)?;
        let to: IpAddr = address.parse()?;
        for protocol in RawProtocol::ALL {
            answered_by(&cluster.client, Via::Raw(protocol), &to.to_string(), "web-0")?;
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

fn fixed_ip(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    for (name, addresses) in [
        ("four", &["10.65.7.1"][..]),
        ("six", &["fd65::7:2"]),
        ("both", &["10.65.7.3", "fd65::7:3"]),
    ] {
        cluster.apply(&Manifest::new(here, name).fixed(addresses).pod().to_string())?;
        let pod = cluster.wait_for_pod(here, name)?;
        for address in addresses {
            let address: IpAddr = address.parse()?;
            ensure!(pod.addresses.contains(&address), "{pod:?} has not {address}");
            reached(cluster, &address.to_string(), name)?;
        }
    }
    // Given later, the annotation has no effect, and that is said.
    let words = "cni.projectcalico.org/ipAddrs=[\"10.65.7.9\"]";
    cluster
        .try_kubectl(&["annotate", "--overwrite", "-n", here, "pod", "four", words], "")?
        .ok()?;
    cluster.wait_for_event(here, "four", "has no effect")?;
    reached(cluster, "10.65.7.1", "four")?;
    probe::nobody_answers(
        &cluster.client,
        Via::Udp,
        "10.65.7.9".parse()?,
        Duration::from_millis(500),
    )
}

fn fixed_ip_refused(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    cluster.apply(
        &Manifest::new(here, "first")
            .fixed(&["10.65.8.1"])
            .pod()
            .to_string(),
    )?;
    cluster.wait_for_pod(here, "first")?;
    for (name, addresses, said) in [
        ("outside", &["10.99.0.1"][..], "pool"),
        ("in-use", &["10.65.8.1"], "already assigned"),
        ("two", &["10.65.8.2", "10.65.8.3"], "more than one"),
    ] {
        let pod = Manifest::new(here, name).fixed(addresses).pod();
        cluster.apply(&pod.to_string())?;
        let said = cluster.wait_for_event(here, name, said)?;
        eprintln!("  {said}");
        cluster
            .api()
            .delete(&format!("/api/v1/namespaces/{here}/pods/{name}"))?;
    }
    Ok(())
}

fn fixed_ip_recreate(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    let manifest = Manifest::new(here, "web").fixed(&["10.65.9.1"]);
    cluster.apply(&manifest.deployment(1, "Recreate").to_string())?;
    restarted(cluster, here, "10.65.9.1")
}

/// The new pod waits until the old one is gone: its ADD is tried again and again.
fn fixed_ip_rolling_update(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    let manifest = Manifest::new(here, "web").fixed(&["10.65.9.2"]);
    cluster.apply(&manifest.deployment(1, "RollingUpdate").to_string())?;
    let old = one_pod(cluster, here)?;
    cluster.kubectl(&format!("rollout restart -n {here} deployment/web"))?;
    let new = cluster.until("there is a new pod", |_| {
        let pods = cluster.pods(here)?;
        pods.into_iter()
            .find(|pod| pod.uid != old.uid)
            .context("there is none")
    })?;
    cluster.wait_for_event(here, &new.name, "10.65.9.2")?;
    cluster.api().delete(&old.path())?;
    cluster.until("the new pod is ready", |_| {
        let pods = cluster.pods(here)?;
        ensure!(pods.iter().any(|pod| pod.uid == new.uid && pod.ready), "{pods:?}");
        Ok(())
    })?;
    reached(cluster, "10.65.9.2", &new.name)
}

fn live_edit(cluster: &Cluster, _: &Buoy<'_>, here: &str) -> Result<()> {
    cluster.apply(&Manifest::new(here, "web-0").pod().to_string())?;
    let pod = cluster.wait_for_pod(here, "web-0")?;
    let annotate = |text: &str| {
        let words = ["annotate", "--overwrite", "-n", here, "pod", "web-0", text];
        cluster.try_kubectl(&words, "")?.ok().map(drop)
    };
    annotate("cni.projectcalico.org/floatingIPs=[\"172.16.1.30\"]")?;
    reached(cluster, "172.16.1.30", "web-0")?;
    annotate("cni.projectcalico.org/floatingIPs=[\"172.16.1.31\"]")?;
    reached(cluster, "172.16.1.31", "web-0")?;
    buoy_lab::ask::silent(&cluster.client, "172.16.1.30")?;
    annotate("cni.projectcalico.org/floatingIPs=no list")?;
    // What cannot be read changes nothing, and is said.
    cluster.wait_for_event(here, "web-0", "not an IP address")?;
    reached(cluster, "172.16.1.31", "web-0")?;
    annotate("cni.projectcalico.org/floatingIPs-")?;
    buoy_lab::ask::silent(&cluster.client, "172.16.1.31")?;
    ensure!(cluster.pod(here, "web-0")?.uid == pod.uid, "the pod was replaced");
    annotate("cni.projectcalico.org/floatingIPs=no list")?;
    cluster.api().delete(&pod.path())?;
    cluster.wait_until_gone(&pod)
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
    let words = "cni.projectcalico.org/floatingIPs=[\"172.16.1.91\"]";
    cluster
        .try_kubectl(
            &["annotate", "--overwrite", "-n", here, "pod", "web-0", words],
            "",
        )?
        .ok()?;
    reached(cluster, "172.16.1.91", "web-0")?;
    cluster.api().delete(&pod.path())?;
    cluster.wait_until_gone(&pod)
}

/// Traffic goes on for as long as it takes others to notice.
fn outlasts(traffic: &Traffic) -> Result<()> {
    std::thread::sleep(Duration::from_secs(1));
    traffic.progress()
}

/// One owner, two that stand by: the address goes with deletion, readiness and a drain.
fn deployment_of_three(cluster: &Cluster, buoy: &Buoy<'_>, here: &str) -> Result<()> {
    let floating = "172.16.1.70";
    let manifest = Manifest::new(here, "web").floating(&[floating]).spread();
    cluster.apply(&manifest.deployment(3, "RollingUpdate").to_string())?;
    cluster.wait_for_pods(here, 3)?;
    let mut owner = owner(cluster, here, floating)?;
    for what in ["deleted", "not ready", "drained"] {
        let before = cluster.pods(here)?;
        let witnesses = Witnesses::start(&cluster.client, floating.parse()?)?;
        let begun = Instant::now();
        match what {
            "deleted" => cluster.api().delete(&owner.path())?,
            "not ready" => drop(cluster.exec(&owner, &["touch", UNREADY])?),
            _ => drain(cluster, &owner.node)?,
        }
        let next = witnesses
            .taken_over(begun, &owner.name, SOON)
            .with_context(|| format!("the owner was {what}\n{}", buoy.evidence()))?;
        eprintln!("  owner {what}: {} → {}: {}", owner.name, next.0, next.1);
        ensure!(before.iter().any(|pod| pod.name == next.0), "a newcomer took it");
        if what == "drained" {
            cluster.kubectl(&format!("uncordon {}", owner.node))?;
        }
        if what == "not ready" {
            cluster.exec(&owner, &["rm", UNREADY])?;
        }
        cluster.wait_for_pods(here, 3)?;
        owner = cluster.pod(here, &next.0)?;
    }
    Ok(())
}

/// Kubelet, containerd, agent and links of the owner's node gone. The last case: the node does not come back.
fn node_dies(cluster: &Cluster, buoy: &Buoy<'_>, here: &str) -> Result<()> {
    let floating = "172.16.1.80";
    let manifest = Manifest::new(here, "web")
        .floating(&[floating])
        .spread()
        .tolerates(2);
    cluster.apply(&manifest.deployment(3, "RollingUpdate").to_string())?;
    cluster.wait_for_pods(here, 3)?;
    let owner = owner(cluster, here, floating)?;
    let witnesses = Witnesses::start(&cluster.client, floating.parse()?)?;
    let begun = Instant::now();
    cluster.node(&owner.node)?.cut_power()?;
    let next = witnesses
        .taken_over(begun, &owner.name, TAKEOVER)
        .with_context(|| buoy.evidence())?;
    eprintln!(
        "  owner's node without power: {} → {}: {}",
        owner.name, next.0, next.1
    );
    Ok(())
}

/// The pod that answers at an address.
fn owner(cluster: &Cluster, namespace: &str, address: &str) -> Result<Pod> {
    let answer = probe::ask(&cluster.client, Via::Tcp, address.parse()?, SOON)?;
    cluster.pod(namespace, &answer.who)
}

fn one_pod(cluster: &Cluster, namespace: &str) -> Result<Pod> {
    let mut pods = cluster.wait_for_pods(namespace, 1)?;
    pods.pop().context("no pod")
}

/// Waits until another pod has taken the place of this one.
fn another(cluster: &Cluster, namespace: &str, old: &Pod) -> Result<Pod> {
    cluster.until("another pod is there", |_| {
        let pods = cluster.pods(namespace)?;
        let found = pods.into_iter().find(|pod| pod.uid != old.uid && pod.ready);
        found.context("there is none")
    })
}

/// A Deployment's rollout keeps the fixed address.
fn restarted(cluster: &Cluster, namespace: &str, address: &str) -> Result<()> {
    let old = one_pod(cluster, namespace)?;
    reached(cluster, address, &old.name)?;
    cluster.kubectl(&format!("rollout restart -n {namespace} deployment/web"))?;
    let new = another(cluster, namespace, &old)?;
    reached(cluster, address, &new.name)
}

fn drain(cluster: &Cluster, node: &str) -> Result<()> {
    let words = format!("drain {node} --ignore-daemonsets --force --delete-emptydir-data --timeout=60s");
    cluster.kubectl(&words).map(drop)
}
