//! Bad input, and what it gets: a clear error that says what to do, nothing leaked, and a bystander who notices nothing.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use buoy_api::names;
use buoy_lab::bystander::{Bystander, FLOATING};
use buoy_lab::dump::Dump;
use buoy_lab::lab::Lab;
use buoy_lab::node::Node;
use buoy_lab::workload::{Refusal, Spec, Workload};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

fn shop(name: &str) -> Spec {
    Spec::pod("shop", name)
}

/// An ADD that is refused, and says what is wrong; then DEL, which succeeds.
fn refused(node: &Node, spec: Spec, words: &[&str]) -> Result<Refusal> {
    let name = spec.name.clone();
    let mut workload = Workload::prepare(node, spec)?;
    let refusal = workload.add()?.refusal()?;
    says(&refusal, words).map_err(|error| error.context(name))?;
    workload.del()?.ok()?;
    Ok(refusal)
}

/// The message says these words, and there is a hint.
fn says(refusal: &Refusal, words: &[&str]) -> Result<()> {
    let all = format!("{}\n{}", refusal.msg, refusal.details);
    for word in words {
        ensure!(all.contains(word), "no '{word}' in: {refusal:?}");
    }
    ensure!(!refusal.details.is_empty(), "no hint: {refusal:?}");
    Ok(())
}

#[test]
fn addresses_that_cannot_be_given() {
    Lab::start().unwrap().test(|lab| {
        let bystander = Bystander::start(lab)?;
        let taken = bystander.workload.addresses()[0].to_string();
        let cases: [(Spec, &[&str]); 9] = [
            (
                shop("outside").fixed(&["203.0.113.9"]),
                &["not in a configured pool", "203.0.113.9"],
            ),
            (shop("in-use").fixed(&[&taken]), &["already", &taken]),
            (
                shop("two-v4").fixed(&["10.65.0.30", "10.65.0.31"]),
                &["more than one IPv4"],
            ),
            (
                shop("two-v6").fixed(&["fd65::30", "fd65::31"]),
                &["more than one IPv6"],
            ),
            (shop("no-ip").fixed(&["10.65.0.300"]), &["10.65.0.300"]),
            (shop("none").fixed(&[]), &["empty"]),
            (
                shop("pool").annotation("ipv4pools", r#"["nowhere"]"#),
                &["nowhere"],
            ),
            (
                shop("pool-family").annotation("ipv6pools", r#"["workloads-v4"]"#),
                &["10.65.0.0", "IPv6"],
            ),
            (
                shop("lacks-v6").fixed(&["10.65.0.30"]).floating(&["fd16::30"]),
                &["fd16::30"],
            ),
        ];
        for (spec, words) in cases {
            refused(&lab.node, spec, words)?;
        }
        bystander.was_undisturbed(lab)
    });
}

#[test]
fn annotations_that_are_not_what_they_should_be() {
    Lab::start().unwrap().test(|lab| {
        let bystander = Bystander::start(lab)?;
        let many: Vec<String> = (0..33).map(|last| format!("172.16.1.{}", last + 100)).collect();
        let many = json!(many).to_string();
        let long = format!("[\"{}\"]", "1".repeat(20_000));
        for (name, text) in [
            ("floatingIPs", "172.16.1.9"),
            ("floatingIPs", "[\"172.16.1.9\""),
            ("floatingIPs", "{\"a\": 1}"),
            ("floatingIPs", "[172]"),
            ("floatingIPs", "[\"web\"]"),
            ("floatingIPs", "[\"::ffff:172.16.1.9\"]"),
            ("floatingIPs", "[\"127.0.0.1\"]"),
            ("floatingIPs", &many),
            ("floatingIPs", &long),
            ("ipAddrs", "10.65.0.9"),
            ("ipAddrs", "[null]"),
            ("ipAddrs", "\u{0}"),
            ("ipv4pools", "workloads-v4"),
            ("allowedSourcePrefixes", "[\"everywhere\"]"),
            ("hwAddr", "not a mac"),
        ] {
            let refusal = refused(&lab.node, shop("bad").annotation(name, text), &[name])?;
            ensure!(
                refusal.msg.len() < 1000,
                "a message as long as its input: {}",
                refusal.msg.len()
            );
        }
        bystander.was_undisturbed(lab)
    });
}

#[test]
fn network_configurations_that_are_wrong() {
    Lab::start().unwrap().test(|lab| {
        let bystander = Bystander::start(lab)?;
        let cases: [(Spec, u64, &str); 5] = [
            (shop("version").config("cniVersion", json!("9.9.9")), 1, "9.9.9"),
            (shop("name").config("name", json!("no/such name")), 7, "name"),
            (shop("ipam").config("ipam", json!("calico-ipam")), 7, "ipam"),
            (shop("mtu").config("mtu", json!("much")), 7, "mtu"),
            (shop("mtu-2").config("mtu", json!(-1)), 7, "mtu"),
        ];
        for (spec, code, word) in cases {
            let mut workload = Workload::prepare(&lab.node, spec)?;
            let refusal = workload.add()?.refusal()?;
            says(&refusal, &[word])?;
            ensure!(refusal.code == code, "{refusal:?}");
        }
        bystander.was_undisturbed(lab)
    });
}

#[test]
fn a_namespace_that_is_gone() {
    Lab::start().unwrap().test(|lab| {
        let bystander = Bystander::start(lab)?;
        let mut workload = Workload::prepare(&lab.node, shop("gone").fixed(&["10.65.0.40"]))?;
        let path = workload.netns().path().to_owned();
        lab.client.exec(&format!("umount {}", path.display()))?;
        fs::remove_file(&path)?;
        let refusal = workload.add()?.refusal()?;
        says(&refusal, &[&path.to_string_lossy()])?;
        workload.del()?.ok()?;

        let other = Workload::start(&lab.node, shop("later"))?;
        let path = other.netns().path();
        lab.client.exec(&format!("umount {}", path.display()))?;
        fs::remove_file(path)?;
        other.delete()?;
        bystander.was_undisturbed(lab)
    });
}

#[test]
fn interfaces_that_are_somebody_elses() {
    Lab::start().unwrap().test(|lab| {
        let node = &lab.node;
        let bystander = Bystander::start(lab)?;
        let link = names::pod_link("shop", "web-0");
        node.netns().ip(&format!(
            "link add {link} type veth peer name elsewhere\nlink set {link} up"
        ))?;
        let foreign = Dump::take(node.netns())?;
        refused(node, shop("web-0"), &[&link])?;
        let difference = foreign.difference(&Dump::take(node.netns())?);
        ensure!(
            !difference.contains(&link),
            "a foreign link was touched:\n{difference}"
        );

        let mut inside = Workload::prepare(node, shop("web-1"))?;
        inside.netns().ip("link add eth0 type veth peer name other")?;
        let refusal = inside.add()?.refusal()?;
        says(&refusal, &["eth0"])?;
        node.netns().ip(&format!("link del {link}"))?;
        inside.netns().ip("link del eth0")?;
        inside.del()?.ok()?;
        bystander.was_undisturbed(lab)
    });
}

#[test]
fn no_agent_is_named_with_its_socket() {
    Lab::start().unwrap().test(|lab| {
        let bystander = Bystander::start(lab)?;
        let web = Workload::start(&lab.node, shop("web-0").floating(&["172.16.1.4"]))?;
        lab.node.stop_agent()?;
        let mut late = Workload::prepare(&lab.node, shop("late"))?;
        let refusal = late.add()?.refusal()?;
        ensure!(refusal.code == 11, "{refusal:?}");
        says(&refusal, &[&lab.node.socket().to_string_lossy()])?;
        late.del()?.ok()?;
        web.delete()?;
        lab.node.start_agent()?;
        bystander.was_undisturbed(lab)
    });
}

#[test]
fn an_agent_that_speaks_otherwise() {
    Lab::start().unwrap().test(|lab| {
        let bystander = Bystander::start(lab)?;
        // A client of a version that is to come, at the real agent.
        let request = json!({"protocol": 999, "client": "buoy-cni 99.0.0", "body": "status"});
        let answer = raw_request(&lab.node, &request)?;
        let error = &answer["Err"];
        ensure!(error["code"] == 1, "{answer}");
        ensure!(error["msg"].to_string().contains("999"), "{answer}");
        ensure!(error["details"].to_string().contains("upgrade"), "{answer}");

        // An agent of some other world, at the real plugin.
        let other = lab.node.directory().join("run/other.sock");
        let listener = UnixListener::bind(&other)?;
        let agent = std::thread::spawn(move || -> Result<()> {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept()?;
            stream.read_exact(&mut [0; 4])?;
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
            Ok(())
        });
        let spec = shop("lost").config("buoy", json!({"socket": other, "spool": lab.node.spool()}));
        let mut workload = Workload::prepare(&lab.node, spec)?;
        let refusal = workload.add()?.refusal()?;
        ensure!(
            !refusal.msg.is_empty() && !refusal.details.is_empty(),
            "{refusal:?}"
        );
        agent.join().unwrap()?;
        bystander.was_undisturbed(lab)
    });
}

/// Sends a request as the protocol has it, and returns the answer.
fn raw_request(node: &Node, request: &Value) -> Result<Value> {
    use std::io::{Read, Write};
    let mut stream = UnixStream::connect(node.socket())?;
    stream.set_read_timeout(Some(SOON))?;
    let body = request.to_string();
    stream.write_all(&u32::try_from(body.len())?.to_be_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

#[test]
fn records_that_people_write_wrongly() {
    Lab::start().unwrap().test(|lab| {
        let bystander = Bystander::start(lab)?;
        let pool = |name: &str, spec: &str| {
            format!(
                "{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: {name}}}, spec: {spec}}}"
            )
        };
        for (records, word) in [
            ("kind: [", "line"),
            (
                "{apiVersion: projectcalico.org/v3, kind: IPPoool, metadata: {name: a}}",
                "IPPoool",
            ),
            (&pool("overlaps", "{cidr: 10.65.1.0/24}"), "overlap"),
            (&pool("loose", "{cidr: 10.66.1.1/24}"), "10.66.1.1/24"),
            (&pool("size", "{cidr: 10.66.0.0/24, blockSize: 8}"), "blockSize"),
            (
                &pool("selector", "{cidr: 10.66.0.0/24, nodeSelector: 'a =='}"),
                "nodeSelector",
            ),
        ] {
            let finished = lab.node.try_ctl(&["apply", "-f", "-"], records)?;
            ensure!(finished.status.code() == Some(1), "{records}: {finished:?}");
            ensure!(
                finished.stderr.contains(word) && has_hint(&finished.stderr),
                "no '{word}' or no hint in: {}",
                finished.stderr
            );
        }
        let finished = lab.node.try_ctl(&["fip", "move", "172.16.1.3"], "")?;
        ensure!(finished.status.code() == Some(2), "{finished:?}");
        for line in [
            format!("fip move {FLOATING} --to nobody --timeout 500ms"),
            "fip attach 172.16.1.4 nobody".to_owned(),
            "get ippool nowhere".to_owned(),
            format!("fip release {FLOATING}"),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let finished = lab.node.try_ctl(&words, "")?;
            ensure!(finished.status.code() == Some(1), "{line}: {finished:?}");
            ensure!(
                has_hint(&finished.stderr),
                "{line}: no hint in: {}",
                finished.stderr
            );
        }
        bystander.was_undisturbed(lab)
    });
}

/// What to do has a line of its own.
fn has_hint(message: &str) -> bool {
    message.trim().lines().count() > 1
}
