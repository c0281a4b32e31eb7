//! An agent whose environment names a proxy.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Output;

use buoy_kubeserver::ConnectProxy;
use serde_json::json;

use crate::bed::{Bed, NODE, OWN};
use crate::tokens::in_a_pod;

#[test]
fn an_agent_uses_the_proxy_of_its_environment_unless_the_server_is_exempt() {
    let mut of_agent = None;
    // A server on the machine's loopback address is never behind a proxy.
    let bed = Bed::begin_by(OWN, |server, directory| {
        let proxy = ConnectProxy::start(IpAddr::V4(Ipv4Addr::LOCALHOST), server.address).unwrap();
        let mut agent = in_a_pod(server, directory);
        agent.env("HTTPS_PROXY", format!("http://{}", proxy.address));
        of_agent = Some(proxy);
        agent
    });
    bed.create(NODE);
    let version = json!(env!("CARGO_PKG_VERSION"));
    bed.until_is("node/n1", "/metadata/annotations/buoy.dev~1agent", &version);
    let server = bed.server.address;
    let asked = of_agent.unwrap().asked();
    let expected = format!("CONNECT {server} HTTP/1.1\r\n");
    assert!(
        asked.iter().all(|asked| asked.starts_with(&expected)),
        "{asked:?}"
    );
    assert!(!asked.is_empty());

    let proxy = ConnectProxy::start(IpAddr::V4(Ipv4Addr::LOCALHOST), server).unwrap();
    let address = proxy.address;
    let exempt = preflight(&bed, &proxy, "10.0.0.0/8,192.0.2.0/24");
    assert!(exempt.status.success(), "{exempt:?}");
    assert_eq!(proxy.asked(), Vec::<String>::new());
    let other = preflight(&bed, &proxy, "10.0.0.0/8,192.0.3.0/24");
    assert!(other.status.success(), "{other:?}");
    assert!(!proxy.asked().is_empty());
    proxy.refuse("403 Forbidden");
    let refused = preflight(&bed, &proxy, "");
    let said = String::from_utf8_lossy(&refused.stderr);
    let expected = format!("the proxy http://{address} does not lead to the API server");
    assert!(!refused.status.success() && said.contains(&expected), "{said}");
}

fn preflight(bed: &Bed, proxy: &ConnectProxy, exempt: &str) -> Output {
    bed.agent_command()
        .env("HTTPS_PROXY", format!("http://{}", proxy.address))
        .env("NO_PROXY", exempt)
        .arg("preflight")
        .output()
        .unwrap()
}
