//! Pods and what makes them, as an operator writes them: with the servers of the lab inside.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::image::SERVER;
use crate::probe::PORT;

/// A file in a pod that makes its readiness probe fail.
pub const UNREADY: &str = "/tmp/unready";

/// A pod, or the template of pods.
#[derive(Clone, Debug)]
pub struct Manifest {
    namespace: String,
    name: String,
    annotations: BTreeMap<String, String>,
    node: Option<String>,
    host_port: Option<u16>,
    spread: bool,
    tolerance: Option<u32>,
}

impl Manifest {
    /// One whose servers answer with the pod's name, and that is ready while they run and no file [`UNREADY`] is there.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            annotations: BTreeMap::new(),
            node: None,
            host_port: None,
            spread: false,
            tolerance: None,
        }
    }

    /// The same with an annotation of Calico's: `floatingIPs`, and its text.
    #[must_use]
    pub fn annotation(mut self, name: &str, text: &str) -> Self {
        let name = format!("cni.projectcalico.org/{name}");
        self.annotations.insert(name, text.to_owned());
        self
    }

    /// The same, asking for floating IPs.
    #[must_use]
    pub fn floating(self, ips: &[&str]) -> Self {
        self.annotation("floatingIPs", &json!(ips).to_string())
    }

    /// The same, asking for fixed addresses.
    #[must_use]
    pub fn fixed(self, ips: &[&str]) -> Self {
        self.annotation("ipAddrs", &json!(ips).to_string())
    }

    /// The same on this node, wherever a scheduler would put it.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// The same with a port of its node.
    #[must_use]
    pub fn host_port(mut self, port: u16) -> Self {
        self.host_port = Some(port);
        self
    }

    /// The same, one on each node if there are as many.
    #[must_use]
    pub fn spread(mut self) -> Self {
        self.spread = true;
        self
    }

    /// The same, given up so many seconds after its node is gone.
    #[must_use]
    pub fn tolerates(mut self, seconds: u32) -> Self {
        self.tolerance = Some(seconds);
        self
    }

    /// A pod alone.
    pub fn pod(&self) -> Value {
        let mut pod = self.template();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!(self.name);
        pod["metadata"]["namespace"] = json!(self.namespace);
        pod
    }

    /// A Deployment; `strategy` is `Recreate` or `RollingUpdate`.
    pub fn deployment(&self, replicas: usize, strategy: &str) -> Value {
        let mut object = self.many("Deployment", replicas);
        object["spec"]["strategy"] = json!({"type": strategy});
        object
    }

    /// A StatefulSet.
    pub fn stateful_set(&self, replicas: usize) -> Value {
        let mut object = self.many("StatefulSet", replicas);
        object["spec"]["serviceName"] = json!(self.name);
        object
    }

    /// A Service in front of the pods, for the servers' port, with a port of every node.
    pub fn service(&self, cluster_ip: &str, node_port: u16) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "type": "NodePort",
                "clusterIP": cluster_ip,
                "selector": self.labels(),
                "ports": [{"port": PORT, "targetPort": PORT, "nodePort": node_port}],
            },
        })
    }

    fn many(&self, kind: &str, replicas: usize) -> Value {
        json!({
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": self.labels()},
                "template": self.template(),
            },
        })
    }

    fn labels(&self) -> Value {
        json!({"app": self.name})
    }

    fn template(&self) -> Value {
        let ready = format!("! test -e {UNREADY} && nc 127.0.0.1 {PORT} </dev/null | grep -q .");
        let mut ports = json!([]);
        if let Some(port) = self.host_port {
            ports = json!([{"containerPort": PORT, "hostPort": port}]);
        }
        let mut spec = json!({
            "terminationGracePeriodSeconds": 1,
            // There is no DNS here.
            "dnsPolicy": "Default",
            "containers": [{
                "name": "server",
                "image": SERVER,
                "imagePullPolicy": "Never",
                "ports": ports,
                "readinessProbe": {
                    "exec": {"command": ["sh", "-c", ready]},
                    "periodSeconds": 1,
                    "timeoutSeconds": 5,
                    "failureThreshold": 1,
                },
            }],
        });
        if let Some(node) = &self.node {
            spec["nodeName"] = json!(node);
        }
        if self.spread {
            spec["topologySpreadConstraints"] = json!([{
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": self.labels()},
            }]);
        }
        if let Some(seconds) = self.tolerance {
            let tolerations = ["not-ready", "unreachable"].map(|taint| {
                json!({
                    "key": format!("node.kubernetes.io/{taint}"),
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": seconds,
                })
            });
            spec["tolerations"] = json!(tolerations);
        }
        json!({"metadata": {"labels": self.labels(), "annotations": self.annotations}, "spec": spec})
    }
}
