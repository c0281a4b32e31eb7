//! Bindings, read and changed straight in the store, past every agent.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use buoy_api::binding::{Candidate, Move, Target};
use buoy_api::{Binding, FloatingIp};
use buoy_core::floating::claim::binding_key;
use buoy_core::store::{Record, Reply, StoreOp, Value};
use buoy_datastore::Datastore;

/// Patience with a binding that others change too.
const SOON: Duration = Duration::from_secs(10);

/// A floating IP's binding.
pub(super) fn binding(store: &dyn Datastore, floating: IpAddr) -> Result<Binding> {
    read(store, floating).map(|(_, binding)| binding)
}

fn read(store: &dyn Datastore, floating: IpAddr) -> Result<(Record, Binding)> {
    let address: FloatingIp = floating.to_string().parse()?;
    match store.run(&StoreOp::Get(binding_key(address))) {
        Reply::Record(Some(record)) => match record.value.clone() {
            Ok(Value::Binding(binding)) => Ok((record, binding)),
            _ => bail!("the binding of {floating} does not decode"),
        },
        other => bail!("no binding of {floating}: {other:?}"),
    }
}

/// Changes a binding; returns when the commit that succeeded was begun.
pub(super) fn edit(
    store: &dyn Datastore,
    floating: IpAddr,
    mut change: impl FnMut(&mut Binding) -> Result<()>,
) -> Result<Instant> {
    let patience = Instant::now();
    while patience.elapsed() < SOON {
        let (record, mut binding) = read(store, floating)?;
        change(&mut binding)?;
        let update = StoreOp::Update(record.key, Value::Binding(binding), record.revision);
        let begun = Instant::now();
        match store.run(&update) {
            Reply::Written(_) => return Ok(begun),
            Reply::Conflict => {}
            other => bail!("cannot change the binding of {floating}: {other:?}"),
        }
    }
    bail!("the binding of {floating} keeps changing")
}

/// A candidate by the name of its workload.
pub(super) fn candidate<'a>(binding: &'a Binding, name: &str) -> Result<&'a Candidate> {
    let mut candidates = binding.status.candidates.iter();
    candidates
        .find(|candidate| candidate.workload == name)
        .with_context(|| format!("{name} is no candidate for {}", binding.spec.address))
}

/// Writes that a person wants the address moved; returns when the commit was begun.
pub(super) fn ask_to_move(store: &dyn Datastore, floating: IpAddr, to: &str, id: &str) -> Result<Instant> {
    edit(store, floating, |binding| {
        candidate(binding, to)?;
        binding.spec.requested_move = Some(Move {
            id: id.to_owned(),
            to: Target {
                node: None,
                workload: to.to_owned(),
                endpoint: None,
            },
            exclusive: false,
            drain: None,
        });
        Ok(())
    })
}
