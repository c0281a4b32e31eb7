//! Create and apply.

use buoy_api::annotations::AGENT;
use buoy_api::v3::IpPool;
use buoy_api::validate::{self, Invalid};
use buoy_core::store::{Record, Value};

use super::{partial, report};
use crate::failure::Failure;
use crate::kind::KindName;
use crate::manifest::{Document, Target, Wanted};
use crate::output::{Format, Output};
use crate::store::{Edit, Store};

/// What to do with a record that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Refuse.
    Create,
    /// Replace its metadata and spec.
    Apply,
}

impl Mode {
    fn past(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Apply => "applied",
        }
    }
}

/// Writes documents in their order. Nothing is written unless all of them can be understood.
pub(crate) fn write(
    store: &Store,
    documents: Vec<Document>,
    namespace: &str,
    mode: Mode,
    format: Format,
) -> Result<Output, Failure> {
    let wanted: Vec<Wanted> = documents
        .into_iter()
        .map(|document| document.decode(namespace).and_then(writable))
        .collect::<Result<_, _>>()?;
    for one in &wanted {
        check(&one.value, None, &[]).map_err(|invalid| refused(one, &invalid))?;
    }
    let mut warnings = Vec::new();
    for (done, one) in wanted.iter().enumerate() {
        let warned = write_one(store, one, mode)
            .map_err(|failure| partial(done, wanted.len(), mode.past(), failure))?;
        warnings.extend(warned);
    }
    warnings.dedup();
    let targets: Vec<Target> = wanted.into_iter().map(|one| one.target).collect();
    Ok(report(mode.past(), &targets, format)?.warning(warnings))
}

/// A binding says who owns an address, and a lease which node lives: only agents can know.
fn writable(wanted: Wanted) -> Result<Wanted, Failure> {
    let refused = match wanted.target.kind {
        KindName::Binding => {
            "bindings are written by agents\nuse buoyctl fip attach, move, detach or release"
        }
        KindName::Lease => {
            "leases are written by agents, as a sign that they live\nstart the node's agent to renew its lease; to \
             move addresses away from the node, use buoyctl fip move"
        }
        _ => return Ok(wanted),
    };
    Err(Failure::new(format!("{}: {refused}", wanted.origin)))
}

fn refused(wanted: &Wanted, invalid: &Invalid) -> Failure {
    Failure::new(format!("{}: {invalid}", wanted.origin))
}

fn write_one(store: &Store, wanted: &Wanted, mode: Mode) -> Result<Vec<String>, Failure> {
    let (pools, warnings) = match wanted.value {
        Value::Pool(_) => {
            let listed = store.pools()?;
            let warnings = listed.warnings().collect();
            (listed.items, warnings)
        }
        _ => (Vec::new(), Vec::new()),
    };
    store.change(&wanted.target.key(), |stored| {
        let before = match stored {
            None if wanted.revision.is_some() && mode == Mode::Apply => {
                return Err(Failure::new(format!(
                    "{}: no longer exists: {} {}\nleave metadata.resourceVersion out to make it again",
                    wanted.origin,
                    wanted.target.kind.kind(),
                    wanted.target.name
                )));
            }
            None => None,
            Some(record) => replaced(wanted, mode, record)?,
        };
        check(&wanted.value, before, &pools).map_err(|invalid| refused(wanted, &invalid))?;
        let value = merged(wanted.value.clone(), before);
        Ok(match before {
            Some(before) if same(before, &value) => Edit::Keep(()),
            _ => Edit::Put(Box::new(value), ()),
        })
    })?;
    Ok(warnings)
}

/// The record that will be replaced, as far as it can be read.
fn replaced<'a>(wanted: &Wanted, mode: Mode, record: &'a Record) -> Result<Option<&'a Value>, Failure> {
    let Wanted { origin, target, .. } = wanted;
    let what = format!("{} {}", target.kind.kind(), target.name);
    if mode == Mode::Create {
        return Err(Failure::new(format!(
            "{origin}: exists already: {what}\nuse apply to change it"
        )));
    }
    if let Some(revision) = wanted.revision
        && revision != record.revision
    {
        return Err(Failure::new(format!(
            "{origin}: has changed since: {what}: file has resourceVersion {revision}, datastore {}\n\
             get it again, or leave metadata.resourceVersion out to overwrite it",
            record.revision
        )));
    }
    Ok(record.value.as_ref().ok())
}

/// What an apply must not take away: the agent's mark on its node.
fn merged(mut wanted: Value, before: Option<&Value>) -> Value {
    if let (Value::Node(node), Some(Value::Node(before))) = (&mut wanted, before)
        && let Some(mark) = before.metadata.annotations.get(AGENT)
    {
        node.metadata
            .annotations
            .entry(AGENT.to_owned())
            .or_insert_with(|| mark.clone());
    }
    wanted
}

/// Whether writing it would change nothing: what the datastore keeps by itself does not count.
fn same(before: &Value, wanted: &Value) -> bool {
    let plain = |value: &Value| {
        let mut document = crate::kind::encode(value)?;
        document.as_object_mut()?.remove("status");
        let metadata = document["metadata"].as_object_mut()?;
        metadata.remove("uid");
        metadata.remove("creationTimestamp");
        Some(document)
    };
    let before = plain(before);
    before.is_some() && before == plain(wanted)
}

fn check(value: &Value, before: Option<&Value>, pools: &[IpPool]) -> Result<(), Invalid> {
    match value {
        Value::Pool(pool) => {
            let before = match before {
                Some(Value::Pool(before)) => Some(before),
                _ => None,
            };
            validate::ip_pool(pool, before, pools)
        }
        Value::Reservation(reservation) => validate::ip_reservation(reservation),
        Value::Node(node) => validate::node(node),
        Value::Endpoint(endpoint) => validate::workload_endpoint(endpoint),
        Value::Felix(felix) => validate::felix_configuration(felix),
        Value::Profile(profile) => validate::profile(profile),
        Value::BgpPeer(peer) => validate::bgp_peer(peer),
        Value::BgpConfiguration(configuration) => validate::bgp_configuration(configuration),
        Value::Binding(binding) => validate::binding(binding),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use buoy_api::ObjectMeta;
    use buoy_api::v3::{Node, NodeSpec};

    use super::*;

    #[test]
    fn an_apply_leaves_the_agents_mark() {
        let node = |marked: bool| {
            let mut node = Node::new(ObjectMeta::named("n1"), NodeSpec::default());
            if marked {
                node.metadata
                    .annotations
                    .insert(AGENT.to_owned(), "0.1.0".to_owned());
            }
            Value::Node(node)
        };
        assert_eq!(merged(node(false), Some(&node(true))), node(true));
        assert_eq!(merged(node(false), Some(&node(false))), node(false));
        assert_eq!(merged(node(false), None), node(false));
    }
}
