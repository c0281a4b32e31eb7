//! With BFD: an address whose node is cut off and for which nobody stands by is unreachable, and not silent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::super::load::UDP;
use super::super::progress;
use super::super::report::{Aim, Report, Row};
use super::web::Web;
use super::{Field, PATIENCE, Scale, address};
use crate::cluster::PEERS;
use crate::exec::eventually;
use crate::node::Node;

/// Mesh and peers ask for BFD.
const MESH: &str = "\
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata:
  name: default
spec:
  nodeToNodeMeshEnabled: true
";
/// Of a node with two others and a router, and of a router with three nodes; in two families.
const SESSIONS: usize = 6;
/// Between the client's questions.
const BETWEEN: Duration = Duration::from_millis(5);

/// Cuts the node off again and again.
pub(super) fn measure(field: &Field, node: &Node, scale: &Scale, report: &mut Report) -> Result<()> {
    progress("  an address that nobody takes over, with BFD")?;
    let lonely = address(1);
    let _web = Web::start(node, b'l', &[lonely])?;
    ask_for_bfd(field, node)?;
    let mut took = Vec::new();
    for _ in 0..scale.unreachable {
        wait_for_bfd(field)?;
        took.push(once(field, node, lonely)?);
        field.cluster.restore(node)?;
        field.cluster.wait_for_sessions()?;
        field.check()?;
    }
    report.add(Row::times("unreachable/bfd", &took).aim(Aim::P99(1_500.0)));
    Ok(())
}

fn ask_for_bfd(field: &Field, node: &Node) -> Result<()> {
    let asking = "metadata:\n  annotations:\n    buoy.dev/bfd: \"true\"\n";
    let records = [MESH, PEERS].map(|records| records.replace("metadata:\n", asking));
    node.apply(&records.join("---\n"))?;
    field.cluster.router.set(|settings| settings.bfd = true)?;
    field.cluster.wait_for_sessions()
}

fn wait_for_bfd(field: &Field) -> Result<()> {
    let all_up = |table: &str| {
        let up = table.lines().filter(|line| line.contains(" Up ")).count();
        ensure!(up == SESSIONS, "{up} of {SESSIONS} BFD sessions are up:\n{table}");
        Ok(())
    };
    eventually(PATIENCE, "all BFD sessions are up", || {
        all_up(&field.cluster.router.birdc("show bfd sessions")?)?;
        for node in &field.cluster.nodes {
            all_up(&node.birdc("show bfd sessions")?).with_context(|| node.name().to_owned())?;
        }
        Ok(())
    })
}

/// From the cut to the first message that says so.
fn once(field: &Field, node: &Node, lonely: IpAddr) -> Result<Duration> {
    let (said, answered) = mpsc::channel();
    let client = field.cluster.client.clone();
    let asking = client.spawn("client", move || {
        ask_until_unreachable(SocketAddr::from((lonely, UDP)), &said)
    })?;
    answered.recv_timeout(PATIENCE).context("nobody answers before")?;
    let begun = Instant::now();
    field.cluster.cut(node)?;
    let at = asking.join().map_err(|_| anyhow!("the client panicked"))??;
    Ok(at.saturating_duration_since(begun))
}

/// Asks until the network says that there is no way; tells when there is the first answer. Returns when it said so.
fn ask_until_unreachable(to: SocketAddr, answered: &Sender<()>) -> Result<Instant> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Else a message that may be passing is not told to who asks.
    setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(BETWEEN))?;
    let (begun, mut answer, mut was_answered) = (Instant::now(), [0; 16], false);
    while begun.elapsed() < PATIENCE {
        let outcome = socket.send(b"?").and_then(|_| socket.recv(&mut answer));
        match outcome {
            Ok(_) if !was_answered => {
                was_answered = true;
                // Nobody listens any more where the measurement has failed.
                let _ = answered.send(());
            }
            Err(error) if was_answered && is_unreachable(&error) => return Ok(Instant::now()),
            _ => {}
        }
        thread::sleep(BETWEEN);
    }
    Err(anyhow!("{to} does not become unreachable within {PATIENCE:?}"))
}

fn is_unreachable(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), HostUnreachable | NetworkUnreachable)
}
