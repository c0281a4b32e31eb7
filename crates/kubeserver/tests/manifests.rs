//! The chart, `deploy/buoy.yaml` and `deploy/uninstall.yaml` that are rendered from it, and what a real API server says to
//! them. `BUOY_UPDATE_MANIFEST=1` writes the files anew.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod chart;

use std::net::{IpAddr, Ipv4Addr};

use buoy_kubeserver::ApiServer;
use chart::{deploy, documents, objects, render};
use serde_json::{Value as Json, json};

const INSTALLATION: &str = "\
# Buoy for Kubernetes: the chart deploy/helm/buoy with its default values. Generated: see crates/kubeserver/tests/manifests.rs.
# The definitions come first, once: kubectl create -f deploy/crds
";

const UNINSTALLATION: &str = "\
# Takes off the nodes what deploy/buoy.yaml puts there. Generated: see crates/kubeserver/tests/manifests.rs.
# The agents end first: kubectl -n buoy-system delete daemonset buoy-agent
";

#[test]
fn the_plain_manifest_is_the_chart_with_default_values() {
    let text = render("default", &[]).unwrap();
    is_committed("buoy.yaml", &format!("{INSTALLATION}{text}"));
}

/// Rights, which the chart has too, are those of the manifest.
#[test]
fn the_plain_uninstallation_is_the_chart_s() {
    let text = render("default", &["uninstall=true"]).unwrap();
    let of_nodes: Vec<&str> = documents(&text)
        .filter(|document| document.contains("\nkind: DaemonSet\n"))
        .collect();
    assert_eq!(of_nodes.len(), 1, "{text}");
    is_committed("uninstall.yaml", &format!("{UNINSTALLATION}---\n{}", of_nodes[0]));
}

/// A file below `deploy` has this text.
#[track_caller]
fn is_committed(name: &str, text: &str) {
    let path = deploy(name);
    if std::env::var_os("BUOY_UPDATE_MANIFEST").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "deploy/{name} is stale\nrun this test with BUOY_UPDATE_MANIFEST=1"
    );
}

#[test]
fn an_api_server_takes_what_is_rendered() {
    let server = ApiServer::start(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
    server
        .create(&[
            &deploy("crds"),
            &deploy("rbac.yaml"),
            &deploy("rbac-controller.yaml"),
        ])
        .unwrap();
    for values in [
        &[][..],
        &["uninstall=true"],
        &[
            "floatingIPs=true",
            "networkPolicy=enforced-by:kube-router",
            "apiServer.host=192.0.2.1,apiServer.port=6443",
            "agent.hostPID=true,agent.settings.nodeIP=auto,agent.secrets={bgp}",
            "cni.kubeconfig=true",
            "imagePullSecrets[0].name=registry",
        ],
    ] {
        let text = render("buoy-system", values).unwrap();
        let create = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
        let rights_are_there = |object: &&Json| {
            let kind = object["kind"].as_str().unwrap();
            !kind.contains("Role") && kind != "ServiceAccount" && kind != "Namespace"
        };
        for object in objects(&text).iter().filter(rights_are_there) {
            server.kubectl(&create, &object.to_string()).unwrap();
        }
    }
}

/// Agents read it when they begin: the value replaces them.
#[test]
fn floating_ips_are_one_value() {
    let mut known = Vec::new();
    for (values, expected) in [
        (&[][..], Json::Null),
        (&["floatingIPs=true"], json!({"floating_ips": true})),
    ] {
        let text = render("default", values).unwrap();
        let conf = network_config(&text);
        assert_eq!(conf["plugins"][0]["type"], "calico");
        assert_eq!(conf["plugins"][0]["feature_control"], expected);
        assert_eq!(conf["plugins"][1]["type"], "portmap");
        let objects = objects(&text);
        let agent = objects
            .iter()
            .find(|object| object["kind"] == "DaemonSet")
            .unwrap();
        known.push(agent["spec"]["template"]["metadata"]["annotations"].clone());
    }
    assert_ne!(known[0], known[1]);
}

/// The line that Calico's guide has people add, where it has them add it.
#[test]
fn calico_s_guide_finds_the_line_that_it_edits() {
    let text = render("default", &[]).unwrap();
    let edited = text.replacen(
        "\"type\": \"calico-ipam\"\n          },\n",
        "\"type\": \"calico-ipam\"\n          },\n          \"feature_control\": {\"floating_ips\": true},\n",
        1,
    );
    assert_ne!(edited, text);
    let guide = network_config(&edited);
    assert_eq!(
        guide,
        network_config(&render("default", &["floatingIPs=true"]).unwrap())
    );
}

#[test]
fn who_lets_helm_make_the_namespace_does_not_get_it_twice() {
    let namespaces = |text: &str| {
        let objects = objects(text);
        objects
            .iter()
            .filter(|object| object["kind"] == "Namespace")
            .count()
    };
    assert_eq!(namespaces(&render("buoy-system", &[]).unwrap()), 0);
    assert_eq!(namespaces(&render("kube-system", &[]).unwrap()), 1);
}

#[test]
fn a_value_that_is_not_known_is_refused() {
    for value in [
        "floatingIps=true",
        "networkPolicy=yes",
        "agent.listen=/run/x",
        "cni.confName=10-calico",
    ] {
        let message = render("default", &[value]).unwrap_err();
        assert!(message.contains("schema"), "{value}: {message}");
    }
}

#[test]
fn the_guide_says_what_each_capability_is_for() {
    let guide = std::fs::read_to_string(deploy("../docs/guide/kubernetes.md")).unwrap();
    for values in [&["agent.hostPID=true"], &["uninstall=true"]] {
        for container in containers(&render("default", values).unwrap()) {
            let added = container["securityContext"]["capabilities"]["add"].as_array();
            for name in added.into_iter().flatten().filter_map(Json::as_str) {
                assert!(guide.contains(&format!("\n| `{name}` | ")), "{name}");
            }
        }
    }
}

/// Nothing runs privileged, or may write where it need not.
#[test]
fn containers_are_confined() {
    for values in [&[][..], &["uninstall=true"], &["agent.hostPID=true"]] {
        let text = render("default", values).unwrap();
        let containers = containers(&text);
        assert!(containers.len() > 1);
        for container in containers {
            let security = &container["securityContext"];
            assert_eq!(security["readOnlyRootFilesystem"], true, "{container}");
            assert_eq!(security["allowPrivilegeEscalation"], false, "{container}");
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{container}");
            assert_eq!(
                security["seccompProfile"]["type"], "RuntimeDefault",
                "{container}"
            );
            assert_eq!(security["privileged"], Json::Null, "{container}");
        }
    }
}

/// All containers of a manifest.
fn containers(text: &str) -> Vec<Json> {
    let objects = objects(text);
    let pods = objects.iter().map(|object| &object["spec"]["template"]["spec"]);
    let lists = pods.flat_map(|pod| [&pod["initContainers"], &pod["containers"]]);
    lists.filter_map(Json::as_array).flatten().cloned().collect()
}

/// The network configuration, with a number where a runtime finds one.
fn network_config(text: &str) -> Json {
    let objects = objects(text);
    let config = objects
        .iter()
        .find(|object| object["kind"] == "ConfigMap" && object["metadata"]["name"] == "calico-config")
        .unwrap();
    assert_eq!(config["metadata"]["namespace"], "kube-system");
    let template = config["data"]["cni_network_config"].as_str().unwrap();
    serde_json::from_str(&template.replace("__CNI_MTU__", "0")).unwrap()
}
