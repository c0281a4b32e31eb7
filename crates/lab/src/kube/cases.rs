//! Many cases on one cluster: each has a Kubernetes namespace of its own, all are run, and those that fail are told at the
//! end; then the independent checker looks at what they left.

use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};

use super::{Buoy, Cluster};

/// A case: its name, which is its namespace's too, and what it does there.
pub type Case = (&'static str, fn(&Cluster, &Buoy<'_>, &str) -> Result<()>);

/// Runs only cases whose name has this text.
const ONLY: &str = "BUOY_KUBE_CASE";

impl Cluster {
    /// Runs cases one after the other. Error: some failed; which, and why. Or what does not agree in the end.
    pub fn cases(&self, buoy: &Buoy<'_>, cases: &[Case]) -> Result<()> {
        let only = env::var(ONLY).unwrap_or_default();
        let mut failed = Vec::new();
        for (name, case) in cases.iter().filter(|(name, _)| name.contains(&only)) {
            let begun = Instant::now();
            let work = || {
                self.namespace(name)?;
                case(self, buoy, name)
            };
            let outcome = panic::catch_unwind(AssertUnwindSafe(work));
            let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("it panicked")));
            let took = begun.elapsed();
            match outcome {
                Ok(()) => eprintln!("case {name} ... ok, {took:.1?}"),
                Err(error) => {
                    eprintln!(
                        "case {name} ... FAILED, {took:.1?}: {error:#}\n{}",
                        buoy.evidence()
                    );
                    failed.push(format!("{name}: {error:#}"));
                }
            }
        }
        ensure!(failed.is_empty(), "cases failed:\n{}", failed.join("\n"));
        self.check()
            .context("the independent checker")
            .inspect_err(|_| eprintln!("{}", buoy.evidence()))
    }
}
