//! What tests ask of nodes and pods, and wait for.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Cluster;

/// A pod as the API shows it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its identity, which a later pod of the name does not have.
    pub uid: String,
    /// The node it is bound to; empty before.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
}

impl Pod {
    fn read(object: &Value) -> Self {
        let text = |pointer: &str| {
            let found = object.pointer(pointer).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        let addresses = object["status"]["podIPs"].as_array();
        let addresses = addresses.into_iter().flatten();
        Self {
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            uid: text("/metadata/uid"),
            node: text("/spec/nodeName"),
            addresses: addresses
                .filter_map(|entry| entry["ip"].as_str()?.parse().ok())
                .collect(),
            ready: is_true(object, "Ready"),
            terminating: object["metadata"]["deletionTimestamp"].is_string(),
        }
    }

    /// Its path in the API.
    pub fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.namespace, self.name)
    }
}

/// Whether a condition of an object is true.
fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|found| found["type"] == condition && found["status"] == "True")
}

impl Cluster {
    /// Waits until all nodes are ready.
    pub fn wait_for_nodes(&self) -> Result<()> {
        self.until("all nodes are ready", |api| {
            let nodes = api.list("/api/v1/nodes")?;
            let ready = nodes.iter().filter(|node| is_true(node, "Ready")).count();
            ensure!(
                ready == self.nodes().len(),
                "{ready} of {} are ready",
                self.nodes().len()
            );
            Ok(())
        })
    }

    /// Whether a node is ready.
    pub fn is_ready(&self, node: &str) -> Result<bool> {
        let object = self.api().get(&format!("/api/v1/nodes/{node}"))?;
        Ok(is_true(&object, "Ready"))
    }

    /// Makes a namespace in which pods can be made.
    pub fn namespace(&self, name: &str) -> Result<()> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.api().create("/api/v1/namespaces", &object)?;
        self.wait_for_account(name)
    }

    /// Waits until a namespace has the account that pods without a name for one have.
    pub(super) fn wait_for_account(&self, namespace: &str) -> Result<()> {
        self.until("the default account is there", |api| {
            api.get(&format!("/api/v1/namespaces/{namespace}/serviceaccounts/default"))
                .map(drop)
        })
    }

    /// The pods of a namespace, in order of their names.
    pub fn pods(&self, namespace: &str) -> Result<Vec<Pod>> {
        let objects = self.api().list(&format!("/api/v1/namespaces/{namespace}/pods"))?;
        Ok(objects.iter().map(Pod::read).collect())
    }

    /// A pod. Error: there is none.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<Pod> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        Ok(Pod::read(&self.api().get(&path)?))
    }

    /// Waits until a namespace has exactly so many pods, all of them ready.
    pub fn wait_for_pods(&self, namespace: &str, count: usize) -> Result<Vec<Pod>> {
        self.until(&format!("{count} pods of {namespace} are ready"), |_| {
            let pods = self.pods(namespace)?;
            let ready = pods.iter().filter(|pod| pod.ready && !pod.terminating).count();
            ensure!(
                pods.len() == count && ready == count,
                "{ready} of {} pods are ready",
                pods.len()
            );
            Ok(pods)
        })
    }

    /// Waits until a pod is ready.
    pub fn wait_for_pod(&self, namespace: &str, name: &str) -> Result<Pod> {
        self.until(&format!("pod {name} of {namespace} is ready"), |_| {
            let pod = self.pod(namespace, name)?;
            ensure!(pod.ready, "it is not");
            Ok(pod)
        })
    }

    /// Waits until there is no pod of this name and identity any more.
    pub fn wait_until_gone(&self, pod: &Pod) -> Result<()> {
        self.until(&format!("pod {} is gone", pod.name), |_| {
            let living = self.pods(&pod.namespace)?;
            ensure!(living.iter().all(|other| other.uid != pod.uid), "it is there");
            Ok(())
        })
    }

    /// What was said about an object of a namespace: `reason: message`, a line each.
    pub fn events(&self, namespace: &str, name: &str) -> Result<Vec<String>> {
        let events = self
            .api()
            .list(&format!("/api/v1/namespaces/{namespace}/events"))?;
        let about = events
            .iter()
            .filter(|event| event["involvedObject"]["name"] == name);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(about
            .map(|event| format!("{}: {}", text(&event["reason"]), text(&event["message"])))
            .collect())
    }

    /// Waits for an event about an object whose line has this text.
    pub fn wait_for_event(&self, namespace: &str, name: &str, text: &str) -> Result<String> {
        self.until(&format!("an event about {name}: {text}"), |_| {
            let events = self.events(namespace, name)?;
            let found = events.iter().find(|line| line.contains(text)).cloned();
            found.with_context(|| events.join("\n"))
        })
    }

    /// Runs a command in a pod's first container, by kubectl. Returns what it printed. Error: it fails.
    pub fn exec(&self, pod: &Pod, words: &[&str]) -> Result<String> {
        let place = ["exec", "-n", &pod.namespace, &pod.name, "--"];
        Ok(self.try_kubectl(&[&place, words].concat(), "")?.ok()?.stdout)
    }
}
