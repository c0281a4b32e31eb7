//! `buoy-lab kube demo`: from a Kubernetes without a network to floating IPs that outlive their pods and nodes, installed as
//! an operator does; every claim is checked.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::story::Story;
use crate::ask::answered_by;
use crate::cluster::PEERS;
use crate::kube::{Cluster, Cni, Manifest, Options, Pod};
use crate::lab::POOLS;
use crate::probe::{self, RawProtocol, Via};
use crate::traffic::{Traffic, Witnesses};

/// Namespace of all pods.
const NAMESPACE: &str = "shop";
/// The floating IP of one pod.
const OF_ONE: &str = "172.16.1.3";
/// The floating IP of a Deployment.
const OF_THREE: &str = "172.16.1.4";
/// The address that a pod chooses for itself.
const FIXED: &str = "10.65.0.10";
/// Patience on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// What the steps work on.
struct Stage<'a> {
    cluster: &'a Cluster,
    story: Story,
}

/// Tells it. Fails with the evidence as soon as something does not hold.
pub fn run() -> Result<ExitCode> {
    let mut story = Story::begin();
    story.line(
        "\
A Kubernetes of three nodes, with kubelet, containerd and kube-proxy, and a control plane; a router, and a client beyond it.
Everything of it is a process in namespaces of this machine.",
    )?;
    story.step(1, "A cluster whose pods have no network")?;
    let cluster = Cluster::start(&Options {
        cni: Cni::None,
        ..Options::default()
    })?;
    story.timed("from nothing to three nodes in", cluster.took())?;
    let mut stage = Stage {
        cluster: &cluster,
        story,
    };
    match stage.tell() {
        Ok(()) => {
            let (checks, took) = (stage.story.checks(), stage.story.took());
            stage.story.line(&format!(
                "\n{checks} claims, each checked, in {:.1} s; now everything is removed.",
                took.as_secs_f64()
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            cluster.run().keep_directory();
            stage.story.failed(&error, &cluster.evidence())?;
            Ok(ExitCode::FAILURE)
        }
    }
}

impl Stage<'_> {
    fn tell(&mut self) -> Result<()> {
        self.install()?;
        self.cluster.namespace(NAMESPACE)?;
        self.switch_on()?;
        self.one_pod()?;
        self.live_edit()?;
        self.fixed()?;
        self.update()?;
        self.three_pods()
    }

    fn install(&mut self) -> Result<()> {
        self.story.step(2, "Buoy is installed")?;
        self.cluster.import_server()?;
        self.cluster.import_buoy()?;
        self.story
            .check("its image, built from Debian's packages and these programs, is on the nodes")?;
        let begun = Instant::now();
        for done in [self.cluster.define_records()?, self.cluster.apply_manifest()?] {
            self.story.command(done, "")?;
        }
        self.cluster.rolled_out("daemonset/buoy-agent")?;
        self.cluster.rolled_out("deployment/buoy-controller")?;
        self.cluster.wait_for_nodes()?;
        self.story.timed(
            "agents and controllers run, and the nodes are Ready, after",
            begun.elapsed(),
        )?;
        for records in [POOLS, PEERS] {
            self.cluster.apply_records(records)?;
        }
        self.show("get ippools.crd.projectcalico.org").map(drop)
    }

    fn switch_on(&mut self) -> Result<()> {
        self.story
            .step(3, "Floating IPs are off, until the ConfigMap says otherwise")?;
        self.cluster.apply(&web().pod().to_string())?;
        let said = self
            .cluster
            .wait_for_event(NAMESPACE, "web", "feature is not enabled: floating_ips")?;
        self.story
            .check("a pod that asks for one is refused, and its events say why")?;
        self.story.say(said.lines().next().unwrap_or_default())?;
        let begun = Instant::now();
        self.cluster.switch_floating_ips_on()?;
        self.story.command(
            "kubectl -n kube-system edit configmap calico-config       # \"feature_control\": {\"floating_ips\": true}",
            "",
        )?;
        self.story
            .command("kubectl -n buoy-system rollout restart daemonset buoy-agent", "")?;
        self.story
            .timed("as in Calico's guide; all agents are new after", begun.elapsed())
    }

    fn one_pod(&mut self) -> Result<()> {
        self.story.step(4, "A pod with a floating IP")?;
        let pod = self.cluster.wait_for_pod(NAMESPACE, "web")?;
        let vias = [Via::Tcp, Via::Udp]
            .into_iter()
            .chain(RawProtocol::ALL.map(Via::Raw));
        for via in vias {
            answered_by(&self.cluster.client, via, OF_ONE, "web")?;
        }
        probe::ask(&self.cluster.client, Via::Ping, OF_ONE.parse()?, SOON)?;
        let what =
            format!("{OF_ONE} answers beyond the router: ping, TCP, UDP, protocol 253, GRE, SCTP INIT");
        self.story.check(&what)?;
        let shown = self.show("get fipb")?;
        ensure!(shown.contains(OF_ONE) && shown.contains(&pod.node), "{shown}");
        self.cluster.wait_for_event(NAMESPACE, "web", OF_ONE)?;
        self.story
            .check("its binding names the pod and its node, and the pod's events tell of the grant")
    }

    fn live_edit(&mut self) -> Result<()> {
        self.story.step(5, "The annotation of a running pod is edited")?;
        let other = "172.16.1.33";
        self.annotate(&format!("[\"{other}\"]"))?;
        answered_by(&self.cluster.client, Via::Tcp, other, "web")?;
        self.story.check(&format!("{other} leads to it now"))?;
        let refused = self.annotate("172.16.1.33");
        ensure!(
            refused
                .as_ref()
                .is_err_and(|error| format!("{error:#}").contains("not a JSON list")),
            "{refused:?}"
        );
        self.story
            .check("one that is no list is refused when it is written")?;
        self.annotate(&format!("[\"{OF_ONE}\"]"))?;
        answered_by(&self.cluster.client, Via::Tcp, OF_ONE, "web").map(drop)
    }

    fn annotate(&self, text: &str) -> Result<()> {
        let annotation = format!("cni.projectcalico.org/floatingIPs={text}");
        let words = [
            "-n",
            NAMESPACE,
            "annotate",
            "--overwrite",
            "pod",
            "web",
            &annotation,
        ];
        self.story.command(
            &format!("kubectl annotate --overwrite pod web cni.projectcalico.org/floatingIPs='{text}'"),
            "",
        )?;
        self.cluster.try_kubectl(&words, "")?.ok().map(drop)
    }

    fn fixed(&mut self) -> Result<()> {
        self.story.step(6, "A pod with an address of its own choice")?;
        let fixed = |name: &str| Manifest::new(NAMESPACE, name).fixed(&[FIXED]).pod().to_string();
        self.cluster.apply(&fixed("db-0"))?;
        let pod = self.cluster.wait_for_pod(NAMESPACE, "db-0")?;
        ensure!(pod.addresses.contains(&FIXED.parse()?), "{:?}", pod.addresses);
        self.story.check(&format!("db-0 has {FIXED}"))?;
        self.cluster.apply(&fixed("db-1"))?;
        let said = self.cluster.wait_for_event(NAMESPACE, "db-1", "already exists")?;
        self.story
            .check("a second pod that asks for it waits, and is told who has it")?;
        self.story.say(said.lines().next().unwrap_or_default())?;
        self.cluster
            .kubectl(&format!("-n {NAMESPACE} delete pod db-0 db-1 --now"))
            .map(drop)
    }

    fn update(&mut self) -> Result<()> {
        self.story.step(
            7,
            "The DaemonSet is updated, with BIRD inside, while clients talk",
        )?;
        let traffic = Traffic::start(&self.cluster.client, OF_ONE.parse()?)?;
        let begun = Instant::now();
        self.cluster.restart_agents()?;
        traffic.progress()?;
        let took = begun.elapsed();
        for (via, tally) in traffic.unharmed()? {
            self.story.check(&format!("{}: {tally}", via.name()))?;
        }
        self.story.timed("three agents were replaced in", took)
    }

    fn three_pods(&mut self) -> Result<()> {
        self.story.step(8, "A Deployment of three has one floating IP")?;
        let web = Manifest::new(NAMESPACE, "shop")
            .floating(&[OF_THREE])
            .spread()
            .tolerates(2);
        self.cluster
            .apply(&web.deployment(3, "RollingUpdate").to_string())?;
        self.cluster.until("three pods are ready", |_| {
            let pods = self.cluster.pods(NAMESPACE)?;
            let ready = pods
                .iter()
                .filter(|pod| pod.ready && pod.name.starts_with("shop-"))
                .count();
            ensure!(ready == 3, "{ready} are");
            Ok(())
        })?;
        let owner = self.owner()?;
        self.story
            .check(&format!("{} on {} owns it, two stand by", owner.name, owner.node))?;
        let next = self.lose(&owner, "kubectl delete pod, of the owner", |cluster, owner| {
            cluster.api().delete(&owner.path())
        })?;
        let owner = self.cluster.pod(NAMESPACE, &next)?;
        self.lose(&owner, "the owner's node loses its power", |cluster, owner| {
            cluster.node(&owner.node)?.cut_power()
        })
        .map(drop)
    }

    fn lose(
        &mut self,
        owner: &Pod,
        what: &str,
        lost: impl FnOnce(&Cluster, &Pod) -> Result<()>,
    ) -> Result<String> {
        self.story
            .say(&format!("{what}, under a ping, a UDP sender and TCP clients:"))?;
        let witnesses = Witnesses::start(&self.cluster.client, OF_THREE.parse()?)?;
        let begun = Instant::now();
        lost(self.cluster, owner)?;
        let (next, seen) = witnesses.taken_over(begun, &owner.name, SOON)?;
        self.story
            .timed(&format!("{next} answers after"), seen.first_answer)?;
        self.story.say(&format!("  {seen}"))?;
        Ok(next)
    }

    fn owner(&self) -> Result<Pod> {
        let answer = probe::ask(&self.cluster.client, Via::Tcp, OF_THREE.parse()?, SOON)?;
        self.cluster
            .pod(NAMESPACE, &answer.who)
            .with_context(|| format!("{} answers", answer.who))
    }

    /// Runs kubectl, and shows command and output.
    fn show(&self, line: &str) -> Result<String> {
        let output = self.cluster.kubectl(line)?;
        self.story.command(&format!("kubectl {line}"), &output)?;
        Ok(output)
    }
}

fn web() -> Manifest {
    Manifest::new(NAMESPACE, "web").floating(&[OF_ONE])
}
