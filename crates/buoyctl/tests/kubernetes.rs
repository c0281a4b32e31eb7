//! The built program and a real API server.

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use buoy_kubeserver::{ADMIN, ApiServer};
use common::{Place, pool};

#[test]
fn what_runs_on_a_file_runs_on_kubernetes() {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let server = ApiServer::start(IpAddr::V4(Ipv4Addr::new(127, high, low, 1))).unwrap();
    let place = Place::on(format!("kubernetes:{}", server.kubeconfig(ADMIN).display()));
    let file = place.file("pool.yaml", &pool("a", "10.65.0.0/16"));
    let early = place.run(&["create", "-f", &file]);
    assert_eq!(early.code, 1);
    assert!(
        early.err.contains("does not know ippools.crd.projectcalico.org"),
        "{early:?}"
    );

    let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    server.create(&[&definitions]).unwrap();
    place.done(&["create", "-f", &file]);
    assert!(
        place
            .run(&["create", "-f", &file])
            .err
            .contains("exists already: IPPool a")
    );
    assert_eq!(
        place.done(&["get", "ippool"]),
        "NAME   CIDR           SELECTOR\na      10.65.0.0/16   all()\n"
    );
    let shown = place.done(&["get", "ippool", "a", "-o", "yaml"]);
    assert!(shown.contains("apiVersion: projectcalico.org/v3"), "{shown}");
    place.apply(&shown.replace("spec:", "spec:\n  natOutgoing: true"));
    let kept = "jsonpath={.spec.natOutgoing}";
    let kept = server.kubectl(&["get", "ippools.crd.projectcalico.org", "a", "-o", kept], "");
    assert_eq!(kept.unwrap(), "true");

    server.kubectl(&["create", "namespace", "shop"], "").unwrap();
    assert!(place.done(&["get", "profile"]).contains("kns.shop"));
    place.bind("10.65.0.9", &["web-0"]);
    let listed = place.done(&["fip", "list"]);
    assert!(
        listed.contains("10.65.0.9") && listed.contains("web-0"),
        "{listed}"
    );
    place.done(&["delete", "ippool", "a"]);
    assert_eq!(place.done(&["get", "ippools"]), "NAME   CIDR   SELECTOR\n");
}
