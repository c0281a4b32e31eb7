//! Reading a BIRD's tables: what `birdc show route` prints.

use anyhow::{Context, Result};
use ipnet::IpNet;

use super::facts::BirdRoute;

/// The routes in a table. A route begins with its prefix, or with blanks where it shares that of the one before; its next
/// hops follow, a tab before each.
pub(super) fn routes(printed: &str) -> Result<Vec<BirdRoute>> {
    let mut routes: Vec<BirdRoute> = Vec::new();
    let mut prefix = None;
    for line in printed.lines() {
        if let Some(hop) = line.strip_prefix('\t') {
            if let Some(route) = routes.last_mut() {
                take_hop(route, hop)?;
            }
            continue;
        }
        let Some((before, after)) = line.split_once('[') else {
            continue;
        };
        let (said, rest) = after
            .split_once(']')
            .with_context(|| format!("a route of BIRD: {line}"))?;
        if !before.starts_with(' ') {
            let first = before.split_whitespace().next().unwrap_or_default();
            prefix = Some(
                first
                    .parse::<IpNet>()
                    .with_context(|| format!("a prefix of BIRD: {line}"))?,
            );
        }
        routes.push(BirdRoute {
            to: prefix.context("BIRD's table begins in the middle of a route")?,
            protocol: said.split_whitespace().next().unwrap_or_default().to_owned(),
            best: rest.trim_start().starts_with('*'),
            gateway: None,
            device: None,
        });
    }
    Ok(routes)
}

fn take_hop(route: &mut BirdRoute, hop: &str) -> Result<()> {
    let words: Vec<&str> = hop.split_whitespace().collect();
    match words[..] {
        ["via", gateway, "on", device, ..] => {
            route.gateway = Some(
                gateway
                    .parse()
                    .with_context(|| format!("a next hop of BIRD: {hop}"))?,
            );
            route.device = Some(device.to_owned());
        }
        ["dev", device, ..] => route.device = Some(device.to_owned()),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let printed = "\
Table master4:
172.16.1.3/32        unicast [n2_v4 22:02:42.953] * (100) [AS64512i]
	via 192.0.2.2 on eth0
                     unicast [n1_v4 22:02:41.102] (100) [AS64512i]
	via 192.0.2.1 on eth0
172.16.1.4/32        unicast [kernel1 22:02:41.102] (10)
	dev cali123 onlink
10.65.0.0/26         blackhole [static1 22:02:39.130] * (200)

Table master6:
fd16::3/128          unicast [n1_v6 22:02:42.953 from fe80::1] * (100) [AS64512i]
	via fe80::1 on eth0
";
        let routes = routes(printed).unwrap();
        assert_eq!(routes.len(), 5);
        let shown: Vec<_> = routes
            .iter()
            .map(|route| {
                let via = route.gateway.map(|gateway| gateway.to_string());
                (route.to.to_string(), route.protocol.as_str(), route.best, via)
            })
            .collect();
        let via = |text: &str| Some(text.to_owned());
        assert_eq!(
            shown,
            [
                ("172.16.1.3/32".to_owned(), "n2_v4", true, via("192.0.2.2")),
                ("172.16.1.3/32".to_owned(), "n1_v4", false, via("192.0.2.1")),
                ("172.16.1.4/32".to_owned(), "kernel1", false, None),
                ("10.65.0.0/26".to_owned(), "static1", true, None),
                ("fd16::3/128".to_owned(), "n1_v6", true, via("fe80::1")),
            ]
        );
        assert_eq!(routes[2].device.as_deref(), Some("cali123"));
    }
}
