//! Somebody who has nothing to do with what goes wrong, and must not notice.

use anyhow::Result;

use crate::lab::Lab;
use crate::leaks::assert_nothing_leaked;
use crate::traffic::Traffic;
use crate::workload::{Spec, Workload};

/// The bystander's floating IP.
pub const FLOATING: &str = "172.16.1.3";

/// A workload with a floating IP, and a client that talks to it all the time.
#[derive(Debug)]
pub struct Bystander {
    /// The workload.
    pub workload: Workload,
    traffic: Traffic,
}

impl Bystander {
    /// Starts both.
    pub fn start(lab: &Lab) -> Result<Self> {
        let spec = Spec::pod("shop", "bystander").floating(&[FLOATING]);
        Ok(Self {
            workload: Workload::start(&lab.node, spec)?,
            traffic: Traffic::start(&lab.client, FLOATING.parse()?)?,
        })
    }

    /// Checks that the client still gets its answers and has lost none, and that nothing is left of anybody else.
    pub fn was_undisturbed(self, lab: &Lab) -> Result<()> {
        self.traffic.progress()?;
        self.traffic.unharmed()?;
        assert_nothing_leaked(&lab.node, &[&self.workload])
    }
}
