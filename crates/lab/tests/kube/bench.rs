//! The bench on a real Kubernetes works: every measurement is made, with few samples.

use crate::measures::measures;

#[test]
fn a_kubernetes_is_measured() {
    measures(
        "kubernetes",
        &[
            "kube-pods-ready/buoy/6",
            "kube-pods-ready/ptp/6",
            "kube-pods-gone/buoy/6",
            "kube-pods-gone/ptp/6",
            "kube-pods-agree/6",
            "kube-pods-requests/6",
            "kube-move/deleted",
            "kube-agent-memory/0",
            "kube-agent-memory/100",
        ],
    );
}
