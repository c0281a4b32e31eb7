//! The cluster itself, with the network that Debian's plugins make: what tests of Buoy on Kubernetes rely on.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use buoy_lab::kube::{Cluster, Options, ProxyMode, image};
use serde_json::json;

/// A Deployment whose pods serve their own names, and a Service in front of it.
fn web(replicas: usize) -> String {
    let labels = json!({"app": "web"});
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "DoNotSchedule",
                        "labelSelector": {"matchLabels": labels},
                    }],
                    "containers": [{
                        "name": "web",
                        "image": image::BUSYBOX,
                        "imagePullPolicy": "Never",
                        "command": ["sh", "-c", "echo serving; hostname > /www/name; exec httpd -f -p 80 -h /www"],
                        "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
                    }],
                },
            },
        },
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.96.7.7",
            "selector": labels,
            "ports": [{"port": 80, "nodePort": 30080}],
        },
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service]}).to_string()
}

#[test]
fn pods_run_on_whole_nodes_and_nothing_stays_behind() {
    let cluster = Cluster::start(&Options {
        proxy: ProxyMode::Nftables,
        ..Options::default()
    })
    .unwrap();
    eprintln!("nodes are ready {:.1?} after nothing was there", cluster.took());
    let base = cluster.run().base().to_owned();
    let left = Leftovers::of(&cluster).unwrap();
    let mut ended = Instant::now();
    cluster.test(|cluster| {
        steps(cluster)?;
        ended = Instant::now();
        Ok(())
    });
    eprintln!("everything is gone after {:.1?}", ended.elapsed());
    assert!(!base.exists(), "{}", base.display());
    left.ensure_gone().unwrap();
}

fn steps(cluster: &Cluster) -> Result<()> {
    let begun = Instant::now();
    cluster.namespace("shop")?;
    cluster.apply(&web(3))?;
    let pods = cluster.wait_for_pods("shop", 3)?;
    eprintln!("three pods are ready after {:.1?}", begun.elapsed());
    let mut nodes: Vec<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
    nodes.sort_unstable();
    ensure!(nodes == ["n1", "n2", "n3"], "{nodes:?}");
    for pod in &pods {
        ensure!(pod.addresses.len() == 2, "{pod:?}");
        ensure!(
            cluster.exec(pod, &["hostname"])?.trim() == pod.name,
            "exec reaches another"
        );
        let said = cluster.kubectl(&format!("logs -n shop {}", pod.name))?;
        ensure!(said == "serving\n", "{said}");
        for address in &pod.addresses {
            ensure!(fetch(cluster, &in_url(address))? == pod.name, "{address}");
        }
    }
    // By kube-proxy: from a pod to the Service, and from outside to a port of every node.
    let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    let page = "http://10.96.7.7/name";
    cluster.until("the Service answers", |_| {
        let answered = cluster.exec(&pods[0], &["wget", "-q", "-O", "-", page])?;
        ensure!(names.contains(&answered.trim()), "{answered}");
        Ok(())
    })?;
    for node in cluster.nodes() {
        let answered = fetch(cluster, &format!("{}:30080", node.addresses()[0]))?;
        ensure!(names.contains(&answered.as_str()), "{answered}");
    }
    restarts(cluster)?;
    further_image(cluster)?;
    power_cut(cluster)
}

/// Pods live on while kubelet and containerd do not.
fn restarts(cluster: &Cluster) -> Result<()> {
    let node = cluster.node("n1")?;
    let pod = pod_on(cluster, "n1")?;
    node.kubelet.kill();
    node.kill_containerd();
    ensure!(
        fetch(cluster, &in_url(&pod.addresses[0]))? == pod.name,
        "the pod does not answer"
    );
    node.start_containerd()?;
    node.kubelet.start()?;
    cluster.wait_for_nodes()?;
    cluster.control.apiserver.kill();
    cluster.control.apiserver.start()?;
    cluster.control.wait_until_it_serves()?;
    ensure!(
        cluster.pod("shop", &pod.name)?.uid == pod.uid,
        "the pod was replaced"
    );
    Ok(())
}

/// An image that is made while the cluster runs can be used on every node.
fn further_image(cluster: &Cluster) -> Result<()> {
    let root = cluster.run().base().join("further");
    std::fs::create_dir_all(root.join("bin"))?;
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    std::fs::write(root.join("word"), "further")?;
    let archive = cluster.run().base().join("further.tar");
    image::from_directory(
        "docker.io/buoy-lab/further:1",
        &["/bin/busybox", "sleep", "600"],
        &root,
        &archive,
    )?;
    cluster.import(&archive)?;
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "further", "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "one", "image": "docker.io/buoy-lab/further:1", "imagePullPolicy": "Never"}],
        },
    });
    cluster.apply(&pod.to_string())?;
    let pod = cluster.wait_for_pod("default", "further")?;
    let word = cluster.exec(&pod, &["/bin/busybox", "cat", "/word"])?;
    ensure!(word == "further", "{word}");
    cluster.api().delete(&pod.path())?;
    cluster.wait_until_gone(&pod)
}

fn power_cut(cluster: &Cluster) -> Result<()> {
    let begun = Instant::now();
    cluster.node("n3")?.cut_power()?;
    cluster.until("the node is not ready", |_| {
        ensure!(!cluster.is_ready("n3")?, "it is");
        Ok(())
    })?;
    eprintln!("a node without power is not ready after {:.1?}", begun.elapsed());
    ensure!(
        cluster.is_ready("n1")? && cluster.is_ready("n2")?,
        "others are not ready, too"
    );
    Ok(())
}

fn pod_on(cluster: &Cluster, node: &str) -> Result<buoy_lab::kube::Pod> {
    let pods = cluster.pods("shop")?;
    let found = pods.into_iter().find(|pod| pod.node == node);
    found.with_context(|| format!("no pod on {node}"))
}

/// Asks from the client beyond the router.
fn fetch(cluster: &Cluster, host: &str) -> Result<String> {
    let page = cluster
        .client
        .exec(&format!("busybox wget -q -O - http://{host}/name"))?;
    Ok(page.stdout.trim().to_owned())
}

fn in_url(address: &std::net::IpAddr) -> String {
    if address.is_ipv6() {
        format!("[{address}]")
    } else {
        address.to_string()
    }
}

/// What a cluster leaves behind if it is not removed.
struct Leftovers {
    run: String,
    paths: Vec<PathBuf>,
    machine: [bool; 4],
}

/// What components would make on the machine if they took it for theirs.
const MACHINES_OWN: [&str; 4] = [
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/run/kubernetes",
    "/opt/cni/bin/ptp",
];

impl Leftovers {
    fn of(cluster: &Cluster) -> Result<Self> {
        let mut paths = Vec::new();
        for node in cluster.nodes() {
            let listed = std::fs::read_to_string(node.directory().join("cgroups"))?;
            let groups = listed.lines().filter_map(|line| line.split(' ').nth(3));
            paths.extend(groups.map(PathBuf::from));
        }
        ensure!(!paths.is_empty(), "nodes have no control groups");
        Ok(Self {
            run: cluster.run().id().to_owned(),
            paths,
            machine: MACHINES_OWN.map(|path| Path::new(path).exists()),
        })
    }

    fn ensure_gone(&self) -> Result<()> {
        for path in &self.paths {
            ensure!(!path.exists(), "it is there: {}", path.display());
        }
        let prefix = format!("b{}-", self.run);
        for entry in std::fs::read_dir("/run/netns")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            ensure!(!name.starts_with(&prefix), "a namespace is there: {name}");
        }
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            ensure!(
                !line.contains(&format!("buoy-lab-{}/", self.run)),
                "it runs: {line}"
            );
        }
        let machine = MACHINES_OWN.map(|path| Path::new(path).exists());
        ensure!(machine == self.machine, "the machine's own directories changed");
        Ok(())
    }
}
