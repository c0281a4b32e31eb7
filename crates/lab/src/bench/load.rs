//! Load: servers inside a workload, and clients that count what they get done in a period.
//!
//! Clients are on the last core and servers on the first, as hosts have processors of their own. One server is on the
//! client's core: there nobody waits for a core to wake up, and what is left is what the path costs.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Protocol, SockAddr, Socket, Type};

use super::family::Family;
use super::machine::Core;
use crate::netns::Netns;
use crate::probe::{any_like, bound, domain_of};

/// Where connections are accepted and closed.
const ACCEPT: [u16; 3] = [7011, 7012, 7013];
/// Where TCP questions are answered.
const TCP: u16 = 7002;
/// Where UDP questions are answered.
pub(super) const UDP: u16 = 7003;
/// Where UDP questions are answered on the client's core.
const UDP_NEAR: u16 = 7004;

/// How often a server looks whether it is to stop.
const ATTENTION: Duration = Duration::from_millis(50);
/// Longest wait of a client for an answer: it never has to wait, or something is wrong.
const LOST: Duration = Duration::from_secs(2);

/// A workload, as a client gets to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    address: IpAddr,
    accept: u16,
}

impl Way {
    /// Several ways to one workload. Connections of each have a port of their own: by two ways from one port to one port,
    /// they would be the same flow to connection tracking.
    pub(super) fn to(addresses: [IpAddr; 3]) -> [Self; 3] {
        let mut ports = ACCEPT.into_iter();
        addresses.map(|address| Self {
            address,
            accept: ports.next().unwrap_or_default(),
        })
    }

    /// The address that the client uses.
    pub(super) fn address(self) -> IpAddr {
        self.address
    }
}

/// Servers inside a workload, which answer each question with one octet of the workload's. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Server {
    /// Starts them; when it returns, they answer.
    pub(super) fn start(netns: &Netns, family: Family, name: u8) -> Result<Self> {
        netns.set_sysctl("net/core/somaxconn", "65535")?;
        let any = family.any();
        let stop = Arc::new(AtomicBool::new(false));
        let mut server = Self {
            stop,
            threads: Vec::new(),
        };
        for port in ACCEPT {
            let listener = netns.enter(move || listener(any, port))?;
            server.spawn(netns, Core::First, move |stop| {
                accept_each(&listener, stop, |stream, _| drop(stream));
                Ok(())
            })?;
        }
        let tcp = netns.enter(move || listener(any, TCP))?;
        server.spawn(netns, Core::First, move |stop| {
            accept_each(&tcp, stop, |stream, stop| {
                std::thread::spawn(move || converse(stream, name, &stop));
            });
            Ok(())
        })?;
        for (port, core) in [(UDP, Core::First), (UDP_NEAR, Core::Last)] {
            let socket = netns.enter(move || datagrams(any, port))?;
            server.spawn(netns, core, move |stop| answer_datagrams(&socket, name, stop))?;
        }
        Ok(server)
    }

    fn spawn(
        &mut self,
        netns: &Netns,
        core: Core,
        work: impl FnOnce(&Arc<AtomicBool>) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let stop = Arc::clone(&self.stop);
        let thread = netns.spawn("server", move || {
            core.keep_to()?;
            work(&stop)
        })?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn listener(any: IpAddr, port: u16) -> Result<TcpListener> {
    let socket = bound(any, port, Type::STREAM, Protocol::TCP)?;
    // More than a client makes while this thread has no processor: a full queue would cost it a second.
    socket.listen(65_535)?;
    socket.set_read_timeout(Some(ATTENTION))?;
    Ok(socket.into())
}

fn datagrams(any: IpAddr, port: u16) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((any, port))?;
    socket.set_read_timeout(Some(ATTENTION))?;
    Ok(socket)
}

fn accept_each(
    listener: &TcpListener,
    stop: &Arc<AtomicBool>,
    mut each: impl FnMut(TcpStream, Arc<AtomicBool>),
) {
    while !stop.load(Ordering::Relaxed) {
        // An error is nobody within the time, or a client that went away at once.
        if let Ok((stream, _)) = listener.accept() {
            each(stream, Arc::clone(stop));
        }
    }
}

/// One octet for each octet, until the client goes.
fn converse(mut stream: TcpStream, name: u8, stop: &AtomicBool) -> Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ATTENTION))?;
    let mut question = [0; 1];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut question) {
            Ok(0) => break,
            Ok(_) => stream.write_all(&[name])?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn answer_datagrams(socket: &UdpSocket, name: u8, stop: &AtomicBool) -> Result<()> {
    let mut question = [0; 16];
    while !stop.load(Ordering::Relaxed) {
        // An error is nobody within the time, or a client that has gone.
        if let Ok((_, from)) = socket.recv_from(&mut question) {
            let _ = socket.send_to(&[name], from);
        }
    }
    Ok(())
}

/// New TCP connections in a second: opened, and reset at once. Nothing else: a question would hide what the network
/// costs behind what the processes cost.
pub(super) fn connections(way: Way, period: Duration) -> Result<f64> {
    let to = SockAddr::from(SocketAddr::new(way.address, way.accept));
    rate(period, || {
        let socket = Socket::new(domain_of(way.address), Type::STREAM, None)?;
        // With a reset, neither side keeps anything of it.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_write_timeout(Some(LOST))?;
        socket.connect(&to).context("a new connection")
    })
}

/// Questions answered in a second over one TCP connection, one at a time.
pub(super) fn tcp_questions(way: Way, period: Duration) -> Result<f64> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(way.address, TCP), LOST)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOST))?;
    let mut answer = [0; 1];
    rate(period, || {
        stream.write_all(b"?")?;
        stream.read_exact(&mut answer).context("an answer over TCP")
    })
}

/// Questions answered in a second over UDP, one at a time, between the same ports.
pub(super) fn udp_questions(way: Way, period: Duration) -> Result<f64> {
    ask_datagrams(SocketAddr::new(way.address, UDP), period)
}

/// The same on one core.
pub(super) fn udp_path(way: Way, period: Duration) -> Result<f64> {
    ask_datagrams(SocketAddr::new(way.address, UDP_NEAR), period)
}

fn ask_datagrams(to: SocketAddr, period: Duration) -> Result<f64> {
    let socket = UdpSocket::bind((any_like(to.ip()), 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(LOST))?;
    let mut answer = [0; 16];
    rate(period, || {
        socket.send(b"?")?;
        socket.recv(&mut answer).context("an answer over UDP")?;
        Ok(())
    })
}

/// How often the calling thread does something in a second. Reads the clock once in 16 times.
fn rate(period: Duration, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    Core::Last.keep_to()?;
    let begun = Instant::now();
    let mut done = 0_u32;
    let took = loop {
        for _ in 0..16 {
            once()?;
        }
        done += 16;
        let took = begun.elapsed();
        if took >= period {
            break took;
        }
    };
    Ok(f64::from(done) / took.as_secs_f64())
}
