//! `fip attach` and `fip detach`: requests, written into a workload endpoint.

use std::net::IpAddr;

use buoy_api::annotations::MAX_FLOATING_IPS;
use buoy_api::v3::{IpNat, IpPool, WorkloadEndpoint};
use buoy_api::{Family, FloatingIp};
use buoy_core::store::{Key, Value};
use serde::Serialize;

use super::workload_name;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::store::{Edit, Store};

/// A workload, as people name it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Pod name, or container ID or the beginning of one.
    pub name: &'a str,
    /// Interface inside it; needed only if it has several.
    pub endpoint: Option<&'a str>,
}

/// What a request came to.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    address: FloatingIp,
    namespace: String,
    workload: String,
    node: String,
    #[serde(skip_serializing_if = "Option::is_none", rename = "internalIP")]
    internal_ip: Option<IpAddr>,
    /// Whether it is another one than before.
    changed: bool,
}

/// Lets a running workload ask for a floating IP.
pub(crate) fn attach(
    store: &Store,
    address: FloatingIp,
    workload: Workload<'_>,
    format: Format,
) -> Result<Output, Failure> {
    let endpoints = store.endpoints()?;
    let key = key_of(find(&endpoints.items, workload)?);
    let request = store.change(&key, |record| {
        let mut endpoint = match record.map(|record| &record.value) {
            Some(Ok(Value::Endpoint(endpoint))) => endpoint.clone(),
            Some(Err(bad)) => return Err(bad.clone().into()),
            _ => return Err(gone(workload)),
        };
        let request = ask(&mut endpoint, address)?;
        Ok(if request.changed {
            Edit::Put(Box::new(Value::Endpoint(endpoint)), request)
        } else {
            Edit::Keep(request)
        })
    })?;
    let pools = store.pools()?;
    let output = Output::render(format, &request, || {
        let whom = format!("{}/{}", request.namespace, request.workload);
        if request.changed {
            format!("{whom} now asks for {address}; buoyctl fip why {address} says what comes of it")
        } else {
            format!("{whom} asks for {address} already")
        }
    })?;
    Ok(output.warning(uncovered(address, &pools.items)))
}

/// Takes the request for a floating IP back: of one workload, or of all in a namespace, or of all there are.
pub(crate) fn detach(
    store: &Store,
    address: FloatingIp,
    namespace: Option<&str>,
    workload: Option<Workload<'_>>,
    format: Format,
) -> Result<Output, Failure> {
    let endpoints = store.endpoints()?;
    let named = workload
        .map(|workload| find(&endpoints.items, workload))
        .transpose()?;
    let asking: Vec<&WorkloadEndpoint> = endpoints
        .items
        .iter()
        .filter(|endpoint| named.is_none_or(|named| std::ptr::eq(named, *endpoint)))
        .filter(|endpoint| namespace.is_none_or(|own| endpoint.metadata.namespace.as_deref() == Some(own)))
        .filter(|endpoint| asks(endpoint, address))
        .collect();
    if asking.is_empty() {
        return Err(Failure::new(format!(
            "nobody there asks for {address}\nbuoyctl fip list -o wide shows who does"
        )));
    }
    let mut taken_back = Vec::new();
    for endpoint in asking {
        let changed = withdraw(store, endpoint, address)?;
        taken_back.push(Request {
            changed,
            ..request_of(endpoint, address, None)
        });
    }
    Output::render(format, &taken_back, || {
        let lines = taken_back.iter().map(|request| {
            format!(
                "{}/{} no longer asks for {address}",
                request.namespace, request.workload
            )
        });
        lines.collect::<Vec<_>>().join("\n")
    })
}

fn withdraw(store: &Store, endpoint: &WorkloadEndpoint, address: FloatingIp) -> Result<bool, Failure> {
    store.change(&key_of(endpoint), |record| {
        Ok(match record.map(|record| &record.value) {
            Some(Ok(Value::Endpoint(endpoint))) if asks(endpoint, address) => {
                let mut endpoint = endpoint.clone();
                endpoint.spec.ip_nats.retain(|nat| !is_for(nat, address));
                Edit::Put(Box::new(Value::Endpoint(endpoint)), true)
            }
            _ => Edit::Keep(false),
        })
    })
}

/// The endpoint that people mean.
fn find<'a>(
    endpoints: &'a [WorkloadEndpoint],
    workload: Workload<'_>,
) -> Result<&'a WorkloadEndpoint, Failure> {
    let Workload {
        namespace,
        name,
        endpoint,
    } = workload;
    let inside: Vec<&WorkloadEndpoint> = endpoints
        .iter()
        .filter(|candidate| candidate.metadata.namespace.as_deref() == Some(namespace))
        .filter(|candidate| endpoint.is_none_or(|wanted| candidate.spec.endpoint == wanted))
        .collect();
    let is = |candidate: &WorkloadEndpoint| workload_name(candidate) == name || candidate.name() == name;
    let begins = |candidate: &WorkloadEndpoint| {
        candidate.spec.pod.is_empty() && !name.is_empty() && candidate.spec.container_id.starts_with(name)
    };
    let mut found: Vec<&WorkloadEndpoint> = inside.iter().copied().filter(|one| is(one)).collect();
    if found.is_empty() {
        found = inside.into_iter().filter(|one| begins(one)).collect();
    }
    match found.as_slice() {
        [only] => Ok(only),
        [] => Err(gone(workload)),
        several => {
            let names: Vec<&str> = several.iter().map(|one| one.name()).collect();
            Err(Failure::new(format!(
                "several endpoints are called {namespace}/{name}: {}\nchoose one with --endpoint, or name it in full",
                names.join(", ")
            )))
        }
    }
}

fn gone(workload: Workload<'_>) -> Failure {
    let Workload {
        namespace,
        name,
        endpoint,
    } = workload;
    let interface = endpoint.map_or_else(String::new, |endpoint| format!(" with interface {endpoint}"));
    Failure::new(format!(
        "no such workload: {namespace}/{name}{interface}\nbuoyctl get wep -A shows those there are"
    ))
}

fn ask(endpoint: &mut WorkloadEndpoint, address: FloatingIp) -> Result<Request, Failure> {
    let whom = workload_name(endpoint).to_owned();
    if asks(endpoint, address) {
        return Ok(request_of(endpoint, address, None));
    }
    if endpoint.spec.ip_nats.len() >= MAX_FLOATING_IPS {
        return Err(Failure::new(format!(
            "too many floating IPs: {whom} asks for {MAX_FLOATING_IPS} already\ndetach one of them"
        )));
    }
    let family = address.family();
    let internal = endpoint
        .spec
        .ip_networks
        .iter()
        .find(|network| Family::of_net(network) == family)
        .map(ipnet::IpNet::addr)
        .ok_or_else(|| {
            Failure::new(format!(
                "workload has no {family} address for floating IP: {whom}: {address}\nchoose a floating IP of the other \
                 family, or give the workload an address"
            ))
        })?;
    endpoint.spec.ip_nats.push(IpNat::new(internal, address.addr()));
    Ok(Request {
        changed: true,
        ..request_of(endpoint, address, Some(internal))
    })
}

fn request_of(endpoint: &WorkloadEndpoint, address: FloatingIp, internal_ip: Option<IpAddr>) -> Request {
    Request {
        address,
        namespace: endpoint.metadata.namespace.clone().unwrap_or_default(),
        workload: workload_name(endpoint).to_owned(),
        node: endpoint.spec.node.clone(),
        internal_ip,
        changed: false,
    }
}

pub(super) fn asks(endpoint: &WorkloadEndpoint, address: FloatingIp) -> bool {
    endpoint.spec.ip_nats.iter().any(|nat| is_for(nat, address))
}

fn is_for(nat: &IpNat, address: FloatingIp) -> bool {
    nat.external_ip.parse() == Ok(address)
}

fn key_of(endpoint: &WorkloadEndpoint) -> Key {
    Key::Endpoint {
        namespace: endpoint.metadata.namespace.clone().unwrap_or_default(),
        name: endpoint.name().to_owned(),
    }
}

fn uncovered(address: FloatingIp, pools: &[IpPool]) -> Option<String> {
    let covered = pools.iter().any(|pool| pool.spec.cidr.contains(&address.addr()));
    (!covered).then(|| {
        format!(
            "no IPPool covers {address}: the request will be refused\nmake a pool for floating IPs with buoyctl apply"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::endpoint;
    use super::*;

    const ADDRESS: &str = "172.16.1.3";

    fn named(name: &str) -> Workload<'_> {
        Workload {
            namespace: "shop",
            name,
            endpoint: None,
        }
    }

    #[test]
    fn a_request_leads_to_the_own_address_of_the_same_family() {
        let mut workload = endpoint("web-0", "n1", &["fd00::7/128", "10.65.0.7/32"], &[]);
        let request = ask(&mut workload, ADDRESS.parse().unwrap()).unwrap();
        assert!(request.changed);
        assert_eq!(request.internal_ip, Some("10.65.0.7".parse().unwrap()));
        let again = ask(&mut workload, ADDRESS.parse().unwrap()).unwrap();
        assert!(!again.changed);
        assert_eq!(
            workload.spec.ip_nats,
            [IpNat {
                internal_ip: "10.65.0.7".to_owned(),
                external_ip: ADDRESS.to_owned()
            }]
        );
    }

    #[test]
    fn what_cannot_be_asked_says_why() {
        let mut four = endpoint("web-0", "n1", &["10.65.0.7/32"], &[]);
        let error = ask(&mut four, "2001:db8::1".parse().unwrap()).unwrap_err();
        assert!(
            error.to_string().starts_with("workload has no IPv6 address"),
            "{error}"
        );
        for i in 0..32 {
            ask(&mut four, format!("172.16.2.{i}").parse().unwrap()).unwrap();
        }
        let error = ask(&mut four, ADDRESS.parse().unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("too many floating IPs"), "{error}");
    }

    #[test]
    fn a_workload_is_found_by_pod_container_or_record() {
        let mut container = endpoint("", "n1", &["10.65.0.9/32"], &[]);
        container.spec.container_id = "c0ffee0123".to_owned();
        container.metadata.name = "n1-cni-c0ffee0123-eth0".to_owned();
        let mut second = endpoint("web-0", "n1", &["10.66.0.7/32"], &[]);
        second.spec.endpoint = "net1".to_owned();
        second.metadata.name = "n1-k8s-web-0-net1".to_owned();
        let all = [endpoint("web-0", "n1", &["10.65.0.7/32"], &[]), second, container];
        let found = |name| find(&all, named(name)).map(|one| one.name().to_owned());
        assert_eq!(found("c0ff").as_deref(), Ok("n1-cni-c0ffee0123-eth0"));
        assert_eq!(found("n1-k8s-web-0-net1").as_deref(), Ok("n1-k8s-web-0-net1"));
        assert!(
            found("web-0")
                .unwrap_err()
                .to_string()
                .starts_with("several endpoints")
        );
        assert!(
            found("web")
                .unwrap_err()
                .to_string()
                .starts_with("no such workload: shop/web\n")
        );
        let eth0 = Workload {
            endpoint: Some("eth0"),
            ..named("web-0")
        };
        assert_eq!(find(&all, eth0).unwrap().name(), "n1-k8s-web-0-eth0");
        let elsewhere = Workload {
            namespace: "other",
            ..named("c0ff")
        };
        assert!(find(&all, elsewhere).is_err());
    }
}
