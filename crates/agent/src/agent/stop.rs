//! Stopping in order.

use std::process::{Command, Stdio};
use std::time::Duration;

use buoy_core::duty::Duty;
use buoy_core::floating::lease::Own;
use buoy_core::subject::Subject;
use buoy_core::time::Mono;
use crossbeam_channel::Receiver;
use tracing::{info, warn};

use super::Agent;
use crate::clock;
use crate::inputs::Input;

/// How long the datastore may take to note that the agent is away on purpose.
const LAST_WRITE: Duration = Duration::from_secs(2);
/// How long a node that goes down tries to give away what it owns.
const LAST_OFFERS: Duration = Duration::from_secs(5);

impl Agent {
    /// Leaves everything programmed. An agent that will be back has its lease last until then; on a machine that goes down
    /// it gives away what its node owns.
    pub(super) fn stop(mut self, inputs: &Receiver<Input>) {
        if machine_goes_down() {
            self.give_away(inputs);
        } else {
            self.prolong_lease(inputs);
        }
        self.note_mark();
        info!("stops, and leaves everything programmed");
    }

    fn prolong_lease(&mut self, inputs: &Receiver<Input>) {
        let Own::Held(held) = self.view.own_lease().clone() else {
            return;
        };
        if !self.view.owns() {
            return;
        }
        let now = clock::now();
        // Behind whatever the thread of leases does now, whose answer comes first.
        let pending = usize::from(self.work.is_running(&Subject::Lease));
        let duty = Duty::ProlongLease(held);
        self.store.perform(Subject::Lease, duty, &self.view, now);
        let until = now.mono.after(LAST_WRITE);
        for _ in 0..=pending {
            if !answered(inputs, until) {
                warn!("the datastore does not note that this agent is away on purpose");
                return;
            }
        }
    }

    fn give_away(&mut self, inputs: &Receiver<Input>) {
        info!("the machine goes down: offers what this node owns");
        self.dirty.extend(self.view.leave());
        let until = clock::mono().after(LAST_OFFERS);
        self.turn();
        while self.view.owns() {
            let left = until.since(clock::mono());
            let Ok(input) = inputs.recv_timeout(left.min(self.patience())) else {
                if left.is_zero() {
                    warn!("goes down with addresses that nobody else has taken over");
                    return;
                }
                self.turn();
                continue;
            };
            self.take(input);
            self.turn();
        }
    }
}

/// Waits for the answer of the thread of leases. What else comes is for the next agent to find out.
fn answered(inputs: &Receiver<Input>, until: Mono) -> bool {
    loop {
        match inputs.recv_timeout(until.since(clock::mono())) {
            Ok(Input::Performed(Subject::Lease, _)) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

/// Whether the supervisor of this machine says that it is about to stop.
fn machine_goes_down() -> bool {
    let state = Command::new("systemctl")
        .arg("is-system-running")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    state.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == "stopping")
}
