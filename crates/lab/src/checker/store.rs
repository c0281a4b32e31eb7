//! Reading the records: the embedded store's table or what `etcdctl` prints, and the JSON in it, without anything of the
//! programs under test.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::store::Store;

use super::facts::{Binding, Block, Candidate, Endpoint, Lease, Owner, Pool, Records, Who};

/// Reads all records of a store. Error: it cannot be read.
pub(super) fn read(store: &Store) -> Result<Records> {
    let pairs = match store {
        Store::File(file) => pairs_of(file)?,
        Store::Etcd(etcd) => etcd.pairs()?,
        Store::Elsewhere(url) => bail!("no way to read all of {url}"),
    };
    Ok(parse(
        pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())),
    ))
}

/// All keys and values of an embedded store. One that nobody has made yet has none.
fn pairs_of(file: &Path) -> Result<Vec<(String, String)>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let store = Connection::open_with_flags(file, flags)
        .with_context(|| format!("cannot open {}", file.display()))?;
    store.busy_timeout(std::time::Duration::from_secs(5))?;
    let mut statement = store.prepare("SELECT key, value FROM kv ORDER BY key")?;
    let rows = statement.query_map((), |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Reads records from keys and values.
pub(super) fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Records {
    let mut records = Records::default();
    for (key, value) in pairs {
        if let Err(error) = take(&mut records, key, value) {
            records.bad.push(format!("{key}: {error:#}"));
        }
    }
    records
}

fn take(records: &mut Records, key: &str, text: &str) -> Result<()> {
    let value: Value = serde_json::from_str(text)?;
    let parts: Vec<&str> = key.trim_start_matches('/').split('/').collect();
    match &parts[..] {
        ["buoy", "v1alpha1", "floatingipbindings", name] => records.bindings.push(binding(name, &value)?),
        ["buoy", "v1alpha1", "nodeleases", name] => {
            let lease = Lease {
                holder: value["spec"]["holder"].as_str().map(str::to_owned),
                term: number(&value["spec"]["term"]),
                renewed: value["spec"]["renewed"]
                    .as_str()
                    .and_then(|time| time.parse().ok()),
            };
            records.leases.insert((*name).to_owned(), lease);
        }
        ["calico", "resources", "v3", _, "ippools", _] => records.pools.push(Pool {
            cidr: parsed(&value["spec"]["cidr"])?,
            exported: value["spec"]["disableBGPExport"].as_bool() != Some(true),
        }),
        ["calico", "resources", "v3", _, "nodes", name] => {
            records.nodes.insert((*name).to_owned());
        }
        ["calico", "resources", "v3", _, "workloadendpoints", ..] => {
            records.endpoints.push(endpoint(&value)?)
        }
        ["calico", "ipam", "v2", "assignment", ..] => records.blocks.push(block(&value)?),
        ["calico", "ipam", "v2", "handle", name] => {
            let blocks = value["block"].as_object();
            let count = blocks.map_or(0, |blocks| blocks.values().map(number).sum());
            records.handles.insert((*name).to_owned(), count);
        }
        _ => {}
    }
    Ok(())
}

fn binding(name: &str, value: &Value) -> Result<Binding> {
    let spec = &value["spec"];
    let owner = match &spec["owner"] {
        Value::Null => None,
        owner => Some(Owner {
            who: who(owner, "workload"),
            internal: parsed(&owner["internalIP"])?,
            term: number(&owner["term"]),
        }),
    };
    let candidates = list(&value["status"]["candidates"]).iter().map(|candidate| {
        Ok(Candidate {
            who: who(candidate, "workload"),
            internal: parsed(&candidate["internalIP"])?,
            ready: candidate["ready"].as_bool() == Some(true),
        })
    });
    Ok(Binding {
        name: name.to_owned(),
        address: parsed(&spec["address"])?,
        namespace: text(&spec["namespace"]),
        epoch: number(&spec["epoch"]),
        owner,
        candidates: candidates.collect::<Result<_>>()?,
    })
}

fn endpoint(value: &Value) -> Result<Endpoint> {
    let spec = &value["spec"];
    let workload = if spec["pod"].is_string() {
        "pod"
    } else {
        "workload"
    };
    let addresses = list(&spec["ipNetworks"])
        .iter()
        .map(|network| parsed::<IpNet>(network).map(|network| network.addr()));
    let mut asks = BTreeMap::new();
    for ask in list(&spec["ipNATs"]) {
        // What a person wrote that is no address is refused, and no business of the rules.
        if let (Ok(floating), Ok(internal)) = (parsed(&ask["externalIP"]), parsed(&ask["internalIP"])) {
            asks.insert(floating, internal);
        }
    }
    Ok(Endpoint {
        who: who(spec, workload),
        namespace: text(&value["metadata"]["namespace"]),
        container: text(&spec["containerID"]),
        link: text(&spec["interfaceName"]),
        addresses: addresses.collect::<Result<_>>()?,
        asks,
    })
}

fn who(value: &Value, workload: &str) -> Who {
    Who {
        node: text(&value["node"]),
        workload: text(&value[workload]),
        endpoint: text(&value["endpoint"]),
    }
}

fn block(value: &Value) -> Result<Block> {
    let cidr: IpNet = parsed(&value["cidr"])?;
    let mut given = Vec::new();
    for (ordinal, attribute) in list(&value["allocations"]).iter().enumerate() {
        let Some(index) = attribute.as_u64() else {
            continue;
        };
        let attribute = &value["attributes"][usize::try_from(index)?];
        given.push((nth(cidr, ordinal)?, text(&attribute["handle_id"])));
    }
    Ok(Block { cidr, given })
}

fn nth(cidr: IpNet, ordinal: usize) -> Result<IpAddr> {
    Ok(match cidr.network() {
        IpAddr::V4(first) => IpAddr::from((u32::from(first) + u32::try_from(ordinal)?).to_be_bytes()),
        IpAddr::V6(first) => IpAddr::from((u128::from(first) + ordinal as u128).to_be_bytes()),
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn parsed<T: std::str::FromStr>(value: &Value) -> Result<T> {
    match value.as_str().map(str::parse) {
        Some(Ok(parsed)) => Ok(parsed),
        _ => bail!("not an address: {value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a store of a node had them, shortened.
    const CAPTURED: [(&str, &str); 7] = [
        (
            "/buoy/v1alpha1/floatingipbindings/172-16-1-3",
            r#"{"apiVersion":"buoy.dev/v1alpha1","kind":"FloatingIPBinding","metadata":{"name":"172-16-1-3"},"spec":{"address":"172.16.1.3","epoch":1,"namespace":"shop","owner":{"endpoint":"eth0","internalIP":"10.65.106.64","node":"n1","term":1,"uid":"a40b","workload":"web-0"}},"status":{"candidates":[{"endpoint":"eth0","internalIP":"10.65.106.64","node":"n1","priority":0,"ready":true,"since":"2026-11-26T22:06:01.060818714Z","uid":"a40b","workload":"web-0"}]}}"#,
        ),
        (
            "/buoy/v1alpha1/nodeleases/n1",
            r#"{"apiVersion":"buoy.dev/v1alpha1","kind":"NodeLease","metadata":{"name":"n1"},"spec":{"durationSeconds":6,"holder":"182c","renewed":"2026-11-26T22:06:01.069973248Z","term":1}}"#,
        ),
        (
            "/calico/ipam/v2/assignment/ipv4/block/172.16.1.0-30",
            r#"{"cidr":"172.16.1.0/30","affinity":null,"allocations":[null,null,null,0],"unallocated":[0,1,2],"attributes":[{"handle_id":"buoy-fip-172-16-1-3","secondary":{"binding":"172-16-1-3","type":"floatingIP"}}],"deleted":false}"#,
        ),
        (
            "/calico/ipam/v2/handle/buoy-fip-172-16-1-3",
            r#"{"block":{"172.16.1.0/30":1},"deleted":false}"#,
        ),
        (
            "/calico/resources/v3/projectcalico.org/ippools/floating-v4",
            r#"{"kind":"IPPool","metadata":{"name":"floating-v4"},"spec":{"assignmentMode":"Manual","cidr":"172.16.1.0/24"}}"#,
        ),
        (
            "/calico/resources/v3/projectcalico.org/nodes/n1",
            r#"{"kind":"Node","metadata":{"name":"n1"},"spec":{"bgp":{"ipv4Address":"192.0.2.1/24"}}}"#,
        ),
        (
            "/calico/resources/v3/projectcalico.org/workloadendpoints/shop/n1-k8s-web--0-eth0",
            r#"{"kind":"WorkloadEndpoint","metadata":{"name":"n1-k8s-web--0-eth0","namespace":"shop"},"spec":{"containerID":"a40b","endpoint":"eth0","interfaceName":"calia4fc3c48bd8","ipNATs":[{"externalIP":"172.16.1.3","internalIP":"10.65.106.64"},{"externalIP":"nonsense","internalIP":"10.65.106.64"}],"ipNetworks":["10.65.106.64/32","fd65::eb74:13c1:2566:6a40/128"],"node":"n1","orchestrator":"k8s","pod":"web-0"}}"#,
        ),
    ];

    #[test]
    fn records_are_read() {
        let records = parse(CAPTURED);
        assert_eq!(records.bad, Vec::<String>::new());
        let binding = &records.bindings[0];
        let floating: IpAddr = "172.16.1.3".parse().unwrap();
        assert_eq!((binding.address, binding.epoch), (floating, 1));
        let owner = binding.owner.as_ref().unwrap();
        assert_eq!(owner.term, 1);
        assert!(binding.candidates[0].ready);
        let endpoint = records.endpoint(binding, &owner.who).unwrap();
        assert_eq!(endpoint.asks, BTreeMap::from([(floating, owner.internal)]));
        assert_eq!(endpoint.addresses[0], owner.internal);
        assert_eq!(endpoint.link, "calia4fc3c48bd8");
        assert_eq!(records.leases["n1"].holder.as_deref(), Some("182c"));
        assert_eq!(
            records.blocks[0].given,
            [(floating, "buoy-fip-172-16-1-3".to_owned())]
        );
        assert_eq!(records.handles["buoy-fip-172-16-1-3"], 1);
        assert!(records.nodes.contains("n1") && records.pools[0].exported);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let records = parse([
            (
                "/buoy/v1alpha1/floatingipbindings/x",
                r#"{"spec":{"address":"x"}}"#,
            ),
            ("/calico/resources/v3/projectcalico.org/ippools/p", "{"),
        ]);
        assert_eq!(records.bad.len(), 2, "{:?}", records.bad);
    }
}
