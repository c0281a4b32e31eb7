//! A workload's servers: they answer every question with the workload's name and the source address they saw.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{SockaddrStorage, recvfrom};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::os::fd::AsRawFd;

use super::answer::{Answer, decode_question};
use super::raw::{RawProtocol, payload};
use super::wire::{PORT, bound, domain_of, readable};
use crate::netns::Netns;

/// How often a server looks whether it is to stop.
const ATTENTION: Duration = Duration::from_millis(20);

/// Servers for UDP, TCP and the raw protocols, IPv4 and IPv6, inside one namespace. Dropping it ends them.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// Serves where this process is, in a pod for instance, until it is told to end by SIGTERM. Without a name: under the
/// host's.
pub fn serve_here(name: Option<String>) -> Result<()> {
    let host = nix::unistd::gethostname().context("this host has no name")?;
    let name = name.unwrap_or_else(|| host.to_string_lossy().into_owned());
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let _server = Server::on(Sockets::open()?, &name)?;
    signals.forever().next();
    Ok(())
}

/// What every server thread has.
#[derive(Clone)]
struct Service {
    who: String,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Starts the servers; when it returns, they answer. `who` is the name they give (no blanks in it).
    pub fn start(netns: &Netns, who: &str) -> Result<Self> {
        let sockets = netns.enter(Sockets::open).context("cannot start servers")?;
        Self::on(sockets, who)
    }

    fn on(sockets: Sockets, who: &str) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let service = Service {
            who: who.to_owned(),
            stop: Arc::clone(&stop),
        };
        let mut server = Self {
            stop,
            threads: Vec::new(),
        };
        for socket in sockets.udp {
            let service = service.clone();
            server.serve("udp", move || service.udp(&socket))?;
        }
        for socket in sockets.tcp {
            let service = service.clone();
            server.serve("tcp", move || service.tcp(&socket))?;
        }
        for (protocol, domain, socket) in sockets.raw {
            let service = service.clone();
            server.serve("raw", move || service.raw(protocol, domain, &socket))?;
        }
        Ok(server)
    }

    fn serve(&mut self, name: &str, work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
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

/// The sockets of one workload, opened before anybody is told that it serves.
struct Sockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    raw: Vec<(RawProtocol, Domain, Socket)>,
}

impl Sockets {
    fn open() -> Result<Self> {
        let mut sockets = Self {
            udp: Vec::new(),
            tcp: Vec::new(),
            raw: Vec::new(),
        };
        for any in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
            sockets
                .udp
                .push(bound(any, PORT, Type::DGRAM, Protocol::UDP)?.into());
            let listener = bound(any, PORT, Type::STREAM, Protocol::TCP)?;
            listener.listen(128)?;
            sockets.tcp.push(listener.into());
            for protocol in RawProtocol::ALL {
                let domain = domain_of(any);
                sockets.raw.push((protocol, domain, protocol.socket(domain)?));
            }
        }
        Ok(sockets)
    }
}

impl Service {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn answer(&self, number: u32, saw: IpAddr) -> Answer {
        Answer {
            number,
            who: self.who.clone(),
            saw: Some(saw),
        }
    }

    fn udp(&self, socket: &UdpSocket) -> Result<()> {
        let mut buffer = [0; 256];
        while !self.is_over() {
            if !readable(socket, ATTENTION)? {
                continue;
            }
            // An error here is a client's that went away before its answer.
            let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            if let Some(number) = decode_question(&buffer[..length]) {
                let _ = socket.send_to(self.answer(number, from.ip()).encode().as_bytes(), from);
            }
        }
        Ok(())
    }

    fn tcp(&self, listener: &TcpListener) -> Result<()> {
        while !self.is_over() {
            if !readable(listener, ATTENTION)? {
                continue;
            }
            let Ok((stream, from)) = listener.accept() else {
                continue;
            };
            let service = self.clone();
            // Ends with its connection, or with the service.
            std::thread::Builder::new()
                .name("connection".to_owned())
                .spawn(move || service.connection(&stream, from.ip()))?;
        }
        Ok(())
    }

    /// One connection: a greeting, then an answer to each line.
    fn connection(&self, stream: &TcpStream, from: IpAddr) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut writer = stream;
        let mut reader = BufReader::new(stream);
        writeln!(writer, "{}", self.answer(0, from).encode())?;
        let mut line = String::new();
        while !self.is_over() {
            if reader.buffer().is_empty() && !readable(stream, ATTENTION)? {
                continue;
            }
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                break;
            }
            if let Some(number) = decode_question(line.as_bytes()) {
                writer.write_all(format!("{}\n", self.answer(number, from).encode()).as_bytes())?;
            }
        }
        Ok(())
    }

    fn raw(&self, protocol: RawProtocol, domain: Domain, socket: &Socket) -> Result<()> {
        let mut buffer = [0; 512];
        while !self.is_over() {
            if !readable(socket, ATTENTION)? {
                continue;
            }
            let Ok((length, Some(from))) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer)
            else {
                continue;
            };
            let Some(ip) = ip_of(&from, domain) else {
                continue;
            };
            let packet = payload(&buffer[..length], ip);
            let reply = packet.and_then(|packet| {
                let number = protocol.read_question(packet)?;
                protocol.answer(packet, &self.answer(number, ip))
            });
            if let Some(reply) = reply {
                let to = SockAddr::from(std::net::SocketAddr::new(ip, 0));
                let _ = socket.send_to(&reply, &to);
            }
        }
        Ok(())
    }
}

/// The address in a socket address of a family.
pub(super) fn ip_of(address: &SockaddrStorage, domain: Domain) -> Option<IpAddr> {
    if domain == Domain::IPV4 {
        address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()))
    } else {
        address
            .as_sockaddr_in6()
            .map(|address| IpAddr::from(address.ip()))
    }
}
