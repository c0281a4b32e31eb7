//! Throughput of one TCP stream, by iperf3.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::machine::Core;
use crate::exec::{self, PATIENCE, Process, eventually};
use crate::netns::Netns;
use crate::workload::Workload;

/// Size of the buffers of both ends. Those that the kernel makes grow until they fit no cache any more, or do not: what comes of
/// that differs by a third from one stream to the next, whichever way they take.
const BUFFERS: &str = "100K";
/// How often iperf3 is asked again.
const TRIES: usize = 3;

/// An iperf3 server inside a workload.
#[derive(Debug)]
pub(super) struct Throughput {
    _server: Process,
}

impl Throughput {
    /// Starts the server; `None` where there is no iperf3.
    pub(super) fn start(workload: &Workload) -> Result<Option<Self>> {
        if exec::run(
            std::process::Command::new("iperf3").arg("--version"),
            "",
            PATIENCE,
        )
        .is_err()
        {
            super::progress("no throughput: iperf3 is not installed")?;
            return Ok(None);
        }
        let run = workload.netns().run();
        let mut command = workload.netns().command("iperf3");
        let log = run.base().join("iperf3.log");
        let server = Process::start(run, command.args(["--server", "--forceflush"]), &log)?;
        eventually(PATIENCE, "the iperf3 server", || {
            let said = std::fs::read_to_string(&log)?;
            anyhow::ensure!(said.contains("Server listening"), "iperf3 says: {said}");
            Ok(())
        })?;
        Ok(Some(Self { _server: server }))
    }

    /// Gigabits in a second, as they arrived. On a busy machine iperf3 may come to its end without having counted; it
    /// is asked again then.
    pub(super) fn measure(&self, client: &Netns, to: IpAddr, much: [&str; 2]) -> Result<f64> {
        let mut rate = once(client, to, much);
        for _ in 0..TRIES {
            if rate.is_ok() {
                break;
            }
            thread::sleep(Duration::from_secs(1));
            rate = once(client, to, much);
        }
        rate
    }
}

fn once(client: &Netns, to: IpAddr, [what, much]: [&str; 2]) -> Result<f64> {
    let to = to.to_string();
    let cores = format!("{},{}", Core::Last.number()?, Core::First.number()?);
    // The kernel's own way, whatever this machine uses: one that paces shows its timers.
    let arguments = ["--client", &to, what, much, "--congestion", "cubic"];
    let arguments = arguments.into_iter().chain(["--window", BUFFERS]);
    let arguments = arguments.chain(["--affinity", &cores, "--json"]);
    let limit = Duration::from_secs(20);
    let finished = exec::run(client.command("iperf3").args(arguments), "", limit)?.ok()?;
    let said: Value = serde_json::from_str(&finished.stdout).context("iperf3 printed no JSON")?;
    let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
    let bits = bits.with_context(|| format!("iperf3 names no rate: {}", said["error"]))?;
    Ok(bits / 1e9)
}
