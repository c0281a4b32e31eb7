//! The independent checker: reads what the kernels, the BIRDs and the store have, and says every disagreement with the
//! invariants.
//!
//! It shares nothing with the programs under test: it reads what `ip`, `nft`, `conntrack`, `birdc` and `etcdctl` print, the
//! table of the embedded store and the raw JSON of the Kubernetes API, has its own idea of what all of that means, and knows
//! no plan. What the design allows while an agent
//! is frozen or a node is cut off it allows too.

mod bird;
mod facts;
mod kernel;
mod objects;
mod place;
mod rules;
mod store;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use jiff::Timestamp;

use crate::api::Api;
use crate::exec::eventually;
use crate::store::Store;
use facts::{Facts, Records, Who};
pub use place::Place;

/// Where the records are.
#[derive(Clone, Debug)]
pub enum Source {
    /// In a store of the lab's.
    Store(Store),
    /// In the API of a Kubernetes.
    Api(Api),
}

impl Source {
    fn read(&self) -> Result<Records> {
        match self {
            Self::Store(store) => store::read(store),
            Self::Api(api) => objects::read(api),
        }
    }
}

/// What is read.
#[derive(Clone, Debug)]
pub struct Places {
    /// The records.
    pub records: Source,
    /// The nodes.
    pub nodes: Vec<Place>,
    /// The router outside, if there is one.
    pub router: Option<Place>,
}

impl Places {
    fn read(&self) -> Result<Facts> {
        let mut nodes = BTreeMap::new();
        for place in &self.nodes {
            nodes.insert(place.name.clone(), place.node()?);
        }
        Ok(Facts {
            now: Timestamp::now(),
            records: self.records.read()?,
            nodes,
            router: self.router.as_ref().map(Place::router).transpose()?,
        })
    }
}

/// Checks once, and shows what does not agree; the program fails if something does not.
pub fn report(places: &Places) -> Result<ExitCode> {
    let wrong = Checker::default().check(places)?;
    let mut out = io::stdout();
    for line in &wrong {
        writeln!(out, "{line}")?;
    }
    if wrong.is_empty() {
        writeln!(out, "kernels, network and records agree")?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

/// Remembers which owners it saw: an epoch has one owner for ever.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    seen: BTreeMap<IpAddr, BTreeMap<u64, Option<Who>>>,
}

impl Checker {
    /// Everything that does not agree now, a line each. Error: something could not be read.
    pub fn check(&mut self, places: &Places) -> Result<Vec<String>> {
        let facts = places.read()?;
        let mut wrong = rules::disagreements(&facts);
        wrong.extend(self.epochs(&facts.records));
        Ok(wrong)
    }

    /// Looks at the epochs alone, while things move.
    pub fn watch(&mut self, places: &Places) -> Result<Vec<String>> {
        Ok(self.epochs(&places.records.read()?))
    }

    /// Waits until all agrees. Error: what still does not, after `limit`, or an epoch with two owners, at once.
    pub fn wait(&mut self, places: &Places, limit: Duration) -> Result<()> {
        let mut broken = Vec::new();
        eventually(limit, "kernels, network and records agree", || {
            let facts = places.read()?;
            broken.extend(self.epochs(&facts.records));
            let wrong = rules::disagreements(&facts);
            ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
            Ok(())
        })?;
        if broken.is_empty() {
            return Ok(());
        }
        bail!("{}", broken.join("\n"))
    }

    /// Epochs never fall, and each has one owner, or one time without.
    fn epochs(&mut self, records: &Records) -> Vec<String> {
        let mut wrong = Vec::new();
        for binding in &records.bindings {
            let seen = self.seen.entry(binding.address).or_default();
            let owner = binding.owner.as_ref().map(|owner| owner.who.clone());
            if let Some((highest, _)) = seen.last_key_value()
                && binding.epoch < *highest
            {
                wrong.push(format!(
                    "{}: the epoch fell from {highest} to {}",
                    binding.address, binding.epoch
                ));
            }
            match seen.get(&binding.epoch) {
                Some(before) if *before != owner => wrong.push(format!(
                    "{}: epoch {} has two owners: {before:?} and {owner:?}",
                    binding.address, binding.epoch
                )),
                _ => {
                    seen.insert(binding.epoch, owner);
                }
            }
        }
        wrong
    }
}
