//! Delete.

use std::net::IpAddr;

use buoy_api::ipam::Block;
use buoy_api::names;
use buoy_api::v3::IpPool;
use buoy_api::{Family, Kind as _};
use buoy_core::store::{Record, Value};

use super::{partial, report};
use crate::failure::Failure;
use crate::kind::KindName;
use crate::manifest::{Document, Target};
use crate::output::{Format, Output};
use crate::store::{Edit, Store};

/// Deletes records of one kind by their names.
pub(crate) fn names(
    store: &Store,
    kind: KindName,
    names: &[String],
    namespace: &str,
    skip_absent: bool,
    format: Format,
) -> Result<Output, Failure> {
    let targets = names
        .iter()
        .map(|name| Target {
            kind,
            namespace: if kind.is_namespaced() {
                namespace.to_owned()
            } else {
                String::new()
            },
            name: name.clone(),
        })
        .collect();
    delete(store, targets, skip_absent, format)
}

/// Deletes the records that documents name, the last first.
pub(crate) fn documents(
    store: &Store,
    documents: &[Document],
    namespace: &str,
    skip_absent: bool,
    format: Format,
) -> Result<Output, Failure> {
    let targets: Vec<Target> = documents
        .iter()
        .rev()
        .map(|document| document.target(namespace))
        .collect::<Result<_, _>>()?;
    delete(store, targets, skip_absent, format)
}

fn delete(store: &Store, targets: Vec<Target>, skip_absent: bool, format: Format) -> Result<Output, Failure> {
    let count = targets.len();
    let mut deleted = Vec::new();
    let mut warnings = Vec::new();
    for (done, target) in targets.into_iter().enumerate() {
        let existed = delete_one(store, &target, skip_absent, &mut warnings)
            .map_err(|failure| partial(done, count, "deleted", failure))?;
        if existed {
            deleted.push(target);
        }
    }
    Ok(report("deleted", &deleted, format)?.warning(warnings))
}

/// Whether there was something to delete.
fn delete_one(
    store: &Store,
    target: &Target,
    skip_absent: bool,
    warnings: &mut Vec<String>,
) -> Result<bool, Failure> {
    let key = target.key();
    if target.kind == KindName::Pool {
        warnings.extend(retire_pool(store, target)?);
    }
    store.change(&key, |record| match record {
        Some(record) => {
            if target.kind == KindName::Binding {
                only_if_useless(record, &target.name)?;
            }
            Ok(Edit::Delete(true))
        }
        None if skip_absent => Ok(Edit::Keep(false)),
        None => Err(absent(target)),
    })
}

/// That a record is not there.
pub(super) fn absent(target: &Target) -> Failure {
    let name = if target.kind.is_namespaced() {
        format!("{}/{}", target.namespace, target.name)
    } else {
        target.name.clone()
    };
    Failure::new(format!("resource does not exist: {}({name})", target.kind.kind()))
}

/// Epochs must never fall, so only the collector deletes a binding, after it has noted the epoch. A record that stands
/// for no address has none.
fn only_if_useless(record: &Record, name: &str) -> Result<(), Failure> {
    match &record.value {
        Ok(Value::Binding(binding))
            if names::address_of_binding(binding.name()) == Some(binding.spec.address) =>
        {
            Err(Failure::new(format!(
                "{} is deleted by Buoy itself: {name}\nuse buoyctl fip release {} to give the address up",
                buoy_api::binding::BindingSpec::KIND,
                binding.spec.address
            )))
        }
        _ => Ok(()),
    }
}

/// Stops allocation from a pool before it goes, and says what is left in use.
fn retire_pool(store: &Store, target: &Target) -> Result<Option<String>, Failure> {
    let pool = store.change(&target.key(), |record| {
        Ok(match record.map(|record| &record.value) {
            Some(Ok(Value::Pool(pool))) if !pool.spec.disabled => {
                let mut disabled = pool.clone();
                disabled.spec.disabled = true;
                Edit::Put(Box::new(Value::Pool(disabled)), Some(pool.clone()))
            }
            Some(Ok(Value::Pool(pool))) => Edit::Keep(Some(pool.clone())),
            _ => Edit::Keep(None),
        })
    })?;
    let Some(pool) = pool else { return Ok(None) };
    let blocks = store.blocks(Family::of_net(&pool.spec.cidr))?;
    Ok(left_in_use(&pool, &blocks.items))
}

fn left_in_use(pool: &IpPool, blocks: &[Block]) -> Option<String> {
    let inside = |address: IpAddr| pool.spec.cidr.contains(&address);
    let count: usize = blocks
        .iter()
        .filter(|block| inside(block.cidr.addr()))
        .map(|block| block.allocations.iter().flatten().count())
        .sum();
    (count > 0).then(|| {
        format!(
            "{count} addresses of IPPool {} are still in use: {}\nthey work until their workloads go; floating IPs of \
             the pool are withdrawn",
            pool.name(),
            pool.spec.cidr
        )
    })
}

#[cfg(test)]
mod tests {
    use buoy_api::ObjectMeta;
    use buoy_api::binding::{Binding, BindingSpec};
    use buoy_core::store::{Bad, Key, Revision};

    use super::*;

    #[test]
    fn a_binding_that_stands_for_an_address_stays() {
        let record = |name: &str| Record {
            key: Key::Binding(name.to_owned()),
            revision: Revision(1),
            value: Ok(Value::Binding(Binding::new(
                ObjectMeta::named(name),
                BindingSpec {
                    address: "172.16.1.3".parse().unwrap(),
                    ..BindingSpec::default()
                },
            ))),
        };
        let message = only_if_useless(&record("172-16-1-3"), "172-16-1-3")
            .unwrap_err()
            .to_string();
        assert!(message.contains("buoyctl fip release 172.16.1.3"), "{message}");
        assert_eq!(only_if_useless(&record("172-16-1-4"), "172-16-1-4"), Ok(()));
        let mut garbage = record("172-16-1-3");
        garbage.value = Err(Bad {
            reason: "x".to_owned(),
        });
        assert_eq!(only_if_useless(&garbage, "172-16-1-3"), Ok(()));
    }
}
