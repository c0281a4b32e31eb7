//! Reading what a kernel has: what `ip -j`, `nft -j` and `conntrack -L` print.

use std::net::IpAddr;

use anyhow::{Context, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::Value;

use super::facts::{Flow, Kernel, Route, Table};

/// Name of the agents' tables.
const TABLE: &str = "buoy";

/// The rows of `ip -j route show` of one family.
pub(super) fn routes(printed: &str, v4: bool) -> Result<Vec<Route>> {
    let rows = json_rows(printed)?;
    rows.iter().map(|row| route(row, v4)).collect()
}

fn route(row: &Value, v4: bool) -> Result<Route> {
    let hop = row["nexthops"].get(0).unwrap_or(row);
    let gateway = hop["gateway"].as_str().or(hop["via"]["host"].as_str());
    let flags = row["flags"].as_array().into_iter().chain(hop["flags"].as_array());
    Ok(Route {
        to: destination(row["dst"].as_str().unwrap_or_default(), v4)?,
        kind: row["type"].as_str().unwrap_or("unicast").to_owned(),
        device: hop["dev"].as_str().map(str::to_owned),
        gateway: gateway.map(str::parse).transpose()?,
        metric: row["metric"].as_u64().unwrap_or_default(),
        protocol: match &row["protocol"] {
            Value::Number(number) => number.to_string(),
            other => other.as_str().unwrap_or_default().to_owned(),
        },
        dead: flags.flatten().any(|flag| flag == "dead" || flag == "linkdown"),
    })
}

/// A prefix as `ip` writes it: without a length it is a host's, and `default` is everything.
fn destination(text: &str, v4: bool) -> Result<IpNet> {
    if text == "default" {
        return Ok(if v4 {
            Ipv4Net::default().into()
        } else {
            Ipv6Net::default().into()
        });
    }
    let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    parsed.with_context(|| format!("a route's destination: {text}"))
}

/// Takes in what `ip -j address show` says: addresses, and which links are up.
pub(super) fn addresses(kernel: &mut Kernel, printed: &str) -> Result<()> {
    for link in json_rows(printed)? {
        let is_up = |flag: &Value| flag == "LOWER_UP";
        let flags = link["flags"].as_array();
        if flags.is_some_and(|flags| flags.iter().any(is_up)) {
            kernel
                .up
                .insert(link["ifname"].as_str().unwrap_or_default().to_owned());
        }
        for address in link["addr_info"].as_array().into_iter().flatten() {
            let local = address["local"].as_str().unwrap_or_default();
            kernel
                .addresses
                .insert(local.parse().with_context(|| format!("an address: {address}"))?);
        }
    }
    Ok(())
}

/// Takes in what `nft -j list ruleset` says of the agents' tables.
pub(super) fn ruleset(kernel: &mut Kernel, printed: &str) -> Result<()> {
    let listed: Value = serde_json::from_str(printed).context("what nft prints")?;
    for object in listed["nftables"].as_array().into_iter().flatten() {
        let set = object.get("set").or(object.get("map"));
        let Some(set) = set.filter(|set| set["table"] == TABLE) else {
            continue;
        };
        let table = if set["family"] == "ip6" {
            Table::Ip6
        } else {
            Table::Ip
        };
        for element in set["elem"].as_array().into_iter().flatten() {
            take_element(kernel, table, set["name"].as_str().unwrap_or_default(), element)
                .with_context(|| format!("an element of {}: {element}", set["name"]))?;
        }
    }
    Ok(())
}

fn take_element(kernel: &mut Kernel, table: Table, set: &str, element: &Value) -> Result<()> {
    let address = |value: &Value| -> Result<IpAddr> { Ok(bare(value).as_str().unwrap_or_default().parse()?) };
    match set {
        "links" => {
            let link = bare(element).as_str().unwrap_or_default().to_owned();
            kernel.links.insert((table, link));
        }
        "fips" => {
            kernel
                .translated
                .insert(address(&element[0])?, address(&element[1])?);
        }
        "floating" => {
            kernel.floating.insert(address(element)?);
        }
        "ending" | "draining" => {
            let pair = &bare(element)["concat"];
            let pair = (address(&pair[0])?, address(&pair[1])?);
            if set == "ending" {
                kernel.ending.insert(pair);
            } else {
                kernel.draining.insert(pair);
            }
        }
        _ => {}
    }
    Ok(())
}

/// An element without its counter, time-out or comment.
fn bare(element: &Value) -> &Value {
    element.get("elem").map_or(element, |element| &element["val"])
}

/// The lines of `conntrack -L`.
pub(super) fn flows(printed: &str) -> Vec<Flow> {
    printed.lines().filter_map(flow).collect()
}

fn flow(line: &str) -> Option<Flow> {
    let values = |key: &str| {
        let words = line.split_whitespace();
        words
            .filter_map(|word| word.strip_prefix(key)?.parse().ok())
            .collect::<Vec<IpAddr>>()
    };
    let (sources, destinations) = (values("src="), values("dst="));
    Some(Flow {
        protocol: line.split_whitespace().next()?.to_owned(),
        source: *sources.first()?,
        destination: *destinations.first()?,
        answers: *sources.get(1)?,
    })
}

fn json_rows(printed: &str) -> Result<Vec<Value>> {
    match printed.trim() {
        "" => Ok(Vec::new()),
        text => serde_json::from_str(text).context("what ip prints"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn routes_are_read() {
        let v4 = r#"[{"dst":"default","gateway":"192.0.2.254","dev":"eth0","flags":[]},{"dst":"172.16.1.3","dev":"calia4fc3c48bd8","protocol":"177","scope":"link","metric":999999999,"flags":[]},{"type":"unreachable","dst":"172.16.1.4","protocol":"177","metric":4294967295,"flags":[]},{"dst":"172.16.1.5","gateway":"192.0.2.2","dev":"eth0","protocol":"bird","metric":32,"flags":["linkdown"]}]"#;
        let routes = routes(v4, true).unwrap();
        assert_eq!(routes[0].to, IpNet::from(Ipv4Net::default()));
        assert_eq!(routes[0].gateway, Some(ip("192.0.2.254")));
        assert_eq!(routes[1].device.as_deref(), Some("calia4fc3c48bd8"));
        assert_eq!(
            (routes[1].metric, routes[1].protocol.as_str()),
            (999_999_999, "177")
        );
        assert_eq!(
            (routes[2].kind.as_str(), routes[2].metric),
            ("unreachable", 4_294_967_295)
        );
        assert!(routes[3].dead && !routes[2].dead);
        let v6 = r#"[{"dst":"fd16::3","gateway":"fe80::1","dev":"eth0","protocol":"bird","metric":32,"flags":[],"pref":"medium"},{"dst":"default","dev":"eth0","metric":1024,"flags":[]}]"#;
        let routes = super::routes(v6, false).unwrap();
        assert_eq!(routes[0].to, IpNet::from(ip("fd16::3")));
        assert_eq!(routes[1].to, IpNet::from(Ipv6Net::default()));
        assert!(super::routes("", true).unwrap().is_empty());
    }

    #[test]
    fn sets_of_our_tables_are_read_and_others_not() {
        let printed = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": "ip", "name": "buoy", "handle": 1}},
            {"set": {"family": "ip", "name": "links", "table": "buoy", "type": "iface_index", "handle": 1, "elem": ["calia4fc3c48bd8"]}},
            {"map": {"family": "ip", "name": "fips", "table": "buoy", "type": "ipv4_addr", "handle": 2, "map": "ipv4_addr", "elem": [["172.16.1.3", "10.65.106.64"]]}},
            {"set": {"family": "ip", "name": "floating", "table": "buoy", "type": "ipv4_addr", "handle": 3, "elem": ["172.16.1.3"]}},
            {"set": {"family": "ip", "name": "sources", "table": "buoy", "type": ["iface_index", "ipv4_addr"], "handle": 4, "elem": [{"concat": ["calia4fc3c48bd8", "10.65.106.64"]}]}},
            {"set": {"family": "ip", "name": "ending", "table": "buoy", "type": ["ipv4_addr", "ipv4_addr"], "handle": 6, "elem": [{"concat": ["172.16.1.3", "10.65.1.1"]}]}},
            {"set": {"family": "ip", "name": "draining", "table": "buoy", "type": ["ipv4_addr", "ipv4_addr"], "handle": 7, "flags": ["timeout"], "elem": [{"elem": {"val": {"concat": ["172.16.1.4", "10.65.1.1"]}, "timeout": 30, "expires": 12}}]}},
            {"map": {"family": "ip", "name": "fips", "table": "foreign", "type": "ipv4_addr", "handle": 2, "map": "ipv4_addr", "elem": [["172.16.1.9", "10.65.106.64"]]}}]}"#;
        let mut kernel = Kernel::default();
        ruleset(&mut kernel, printed).unwrap();
        assert!(kernel.is_workload("calia4fc3c48bd8") && !kernel.is_workload("eth0"));
        assert_eq!(
            kernel.translated.into_iter().collect::<Vec<_>>(),
            [(ip("172.16.1.3"), ip("10.65.106.64"))]
        );
        assert!(kernel.floating.contains(&ip("172.16.1.3")));
        assert_eq!(kernel.ending, [(ip("172.16.1.3"), ip("10.65.1.1"))].into());
        assert_eq!(kernel.draining, [(ip("172.16.1.4"), ip("10.65.1.1"))].into());
    }

    #[test]
    fn flows_are_read() {
        let printed = "\
icmp     1 29 src=192.0.2.10 dst=172.16.1.3 type=8 code=0 id=9946 src=10.65.106.64 dst=192.0.2.10 type=0 code=0 id=9946 mark=0 use=1
tcp      6 431999 ESTABLISHED src=192.0.2.10 dst=172.16.1.3 sport=34102 dport=7007 src=10.65.106.64 dst=192.0.2.10 sport=7007 dport=34102 [ASSURED] mark=0 use=1
udp      17 29 src=2001:db8::10 dst=fd16::3 sport=4000 dport=7007 [UNREPLIED] src=fd16::3 dst=2001:db8::10 sport=7007 dport=4000 mark=0 use=1
";
        let flows = flows(printed);
        assert_eq!(flows.len(), 3);
        assert_eq!(flows[1].protocol, "tcp");
        assert_eq!(
            (flows[1].destination, flows[1].answers),
            (ip("172.16.1.3"), ip("10.65.106.64"))
        );
        assert_eq!(
            (flows[2].source, flows[2].answers),
            (ip("2001:db8::10"), ip("fd16::3"))
        );
    }

    #[test]
    fn links_and_addresses_are_read() {
        let printed = r#"[{"ifname":"eth0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"addr_info":[{"family":"inet","local":"192.0.2.1","prefixlen":24},{"family":"inet6","local":"fe80::4c5a:fbff:fefe:bc2c","prefixlen":64}]},{"ifname":"eth1","flags":["NO-CARRIER","BROADCAST","MULTICAST","UP"],"addr_info":[]}]"#;
        let mut kernel = Kernel::default();
        addresses(&mut kernel, printed).unwrap();
        assert!(kernel.up.contains("eth0") && !kernel.up.contains("eth1"));
        assert!(kernel.addresses.contains(&ip("fe80::4c5a:fbff:fefe:bc2c")));
    }
}
