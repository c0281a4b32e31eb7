//! Delete.

use std::net::IpAddr;

use buoy_api::Family;
use buoy_api::ipam::Block;
use buoy_api::v3::IpPool;
use buoy_core::store::Value;

use super::{binding, partial, report};
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
    if let Some(lease) = targets.iter().find(|target| target.kind == KindName::Lease) {
        return Err(lease_stays(lease));
    }
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

/// Whether there was something to delete. Before a binding goes, the epoch floor is raised above the epoch that it may
/// have had, and a warning says so.
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
    let mut floor = None;
    let existed = store.change(&key, |record| match record {
        Some(record) => {
            if target.kind == KindName::Binding {
                binding::only_if_useless(record, &target.name)?;
                if floor.is_none() {
                    floor = Some(binding::raise_floor(store)?);
                }
            }
            Ok(Edit::Delete(true))
        }
        None if skip_absent => Ok(Edit::Keep(false)),
        None => Err(absent(target)),
    })?;
    warnings.extend(floor.map(|floor| binding::floor_raised(&key, floor)));
    Ok(existed)
}

/// A term must never fall: with a lease made anew, an owner that was revoked under a higher term would be one again.
fn lease_stays(target: &Target) -> Failure {
    Failure::new(format!(
        "leases are not deleted: {} {}\nits term tells owners of floating IPs from those that lost them; a lease that \
         nobody renews does no harm",
        target.kind.kind(),
        target.name
    ))
}

/// That a record is not there.
pub(super) fn absent(target: &Target) -> Failure {
    let name = if target.kind.is_namespaced() {
        format!("{}/{}", target.namespace, target.name)
    } else {
        target.name.clone()
    };
    let kind = target.kind.kind();
    Failure::new(format!(
        "resource does not exist: {kind}({name})\nbuoyctl get {} shows those there are",
        kind.to_lowercase()
    ))
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
