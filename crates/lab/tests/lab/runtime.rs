//! Containers by containerd and runc, with the network configuration of Calico's guide and `portmap` chained after it.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use buoy_lab::ask::listed_as;
use buoy_lab::exec::eventually;
use buoy_lab::lab::Lab;
use buoy_lab::leaks::assert_nothing_leaked;
use buoy_lab::runtime::{CniDirectories, Container, Runtime};
use serde_json::json;

const FLOATING: &str = "172.16.1.3";
const SOON: Duration = Duration::from_secs(30);

/// Serves its own name over HTTP.
fn serve(name: &str) -> String {
    format!("echo {name} > /www/name; exec httpd -f -p 80 -h /www")
}

#[test]
fn containers_have_addresses_and_a_floating_ip_that_moves() {
    Lab::start().unwrap().test(|lab| {
        let node = &lab.node;
        let before = machines_own();
        fs::copy("/usr/lib/cni/portmap", node.plugins().join("portmap"))
            .context("no plugin portmap\n  install the package containernetworking-plugins")?;
        let list = fs::read_to_string(node.directory().join("net.d/10-calico.conflist"))?;
        ensure!(
            list.contains("\"cniVersion\": \"0.3.0\"") && list.contains("portmap"),
            "{list}"
        );
        let cni = CniDirectories {
            configuration: &node.directory().join("net.d"),
            plugins: &node.plugins(),
        };
        let runtime = Runtime::start(node.netns(), node.directory(), cni)?;
        let web = runtime.run("web", &serve("web"))?;
        let other = runtime.run("api", &serve("api"))?;
        let own = own_address(&web)?;
        ensure!(
            fetch(lab, &own)? == "web",
            "the pod's own address does not answer"
        );

        for name in ["web", "api"] {
            node.ctl(&format!("fip attach {FLOATING} default-{name}"))?;
            answered_by(lab, "web")?;
        }
        // It says so of itself in its own time.
        listed_as(node, FLOATING, "the other stands by", |row| {
            row["standby"] == json!(["default-api"])
        })?;
        node.ctl(&format!("fip move {FLOATING} --to default-api"))?;
        answered_by(lab, "api")?;
        other.kill()?;
        answered_by(lab, "web")?;
        node.kill_agent();
        answered_by(lab, "web")?;
        node.start_agent()?;
        web.kill()?;
        assert_nothing_leaked(node, &[])?;
        drop(runtime);
        ensure!(
            machines_own() == before,
            "something reached the machine's own directories"
        );
        Ok(())
    });
}

/// When the files were changed that a runtime without directories of its own would use.
fn machines_own() -> [Option<SystemTime>; 3] {
    [
        "/opt/cni/bin/calico",
        "/etc/cni/net.d/10-calico.conflist",
        "/run/containerd/containerd.sock",
    ]
    .map(|path| fs::metadata(path).and_then(|found| found.modified()).ok())
}

/// The IPv4 address of a container's eth0, which must be a /32 as Calico's are.
fn own_address(container: &Container<'_>) -> Result<String> {
    let shown = container.exec("ip -4 address show dev eth0")?.stdout;
    let address = shown.split_whitespace().find(|word| word.ends_with("/32"));
    Ok(address
        .with_context(|| format!("no /32 on eth0:\n{shown}"))?
        .trim_end_matches("/32")
        .to_owned())
}

fn fetch(lab: &Lab, address: &str) -> Result<String> {
    let page = lab
        .client
        .exec(&format!("busybox wget -q -O - http://{address}/name"))?;
    Ok(page.stdout.trim().to_owned())
}

fn answered_by(lab: &Lab, name: &str) -> Result<()> {
    eventually(SOON, &format!("{name} serves {FLOATING}"), || {
        let who = fetch(lab, FLOATING)?;
        ensure!(who == name, "{who} serves it");
        Ok(())
    })
}
