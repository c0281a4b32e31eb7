//! How the kubelets are set.

use std::path::Path;

use serde_json::{Value, json};

/// The kubelet's configuration. It differs from a real cluster's where several nodes share a machine, and where a dead node
/// is to be noticed in seconds.
pub(crate) fn configuration() -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "failSwapOn": false,
        "failCgroupV1": false,
        "oomScoreAdj": 0,
        // The machine's resolver is not for pods.
        "resolvConf": "",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // Nobody but the API server reaches this network, and it has no certificate for kubelets.
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        // The machine's memory and disk are everybody's: pods are not evicted for what others use.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "10Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "maxPods": 250,
        "kubeAPIQPS": 500,
        "kubeAPIBurst": 1000,
        "eventRecordQPS": 0,
        "registryPullQPS": 0,
        "serializeImagePulls": false,
        "nodeStatusUpdateFrequency": "1s",
        "nodeLeaseDurationSeconds": 4,
    })
}

/// The kubelet's command line.
pub(crate) fn arguments(name: &str, addresses: [&str; 2], config: &Path, kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={name}"),
        format!("--node-ip={}", addresses.join(",")),
    ]
}
