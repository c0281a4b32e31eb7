//! The agent's socket: one request a connection, answered when the loop has the answer.

use std::io::{IoSliceMut, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use buoy_cni_spec::agent::{Response, decode_request};
use buoy_cni_spec::frame::{self, Decoder};
use buoy_cni_spec::{CniError, ErrorCode};
use buoy_kernel::netns::Netns;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recv, recvmsg};
use tracing::{debug, warn};

use super::{Call, CallId, Input};
use crate::metrics::attachments::Counts;

/// Connections at a time; more are told to try again.
const CONNECTIONS: usize = 512;
/// Time for a client to send its request.
const READ_TIME: Duration = Duration::from_secs(10);
/// How often a client that waits is looked at for having gone.
const GLANCE: Duration = Duration::from_millis(100);

/// Listens on the socket for as long as the process lives. A socket that nobody answers on is replaced.
pub(crate) fn listen(path: &Path, counts: Counts, inputs: Sender<Input>) -> Result<()> {
    let listener = buoy_daemon::http::bind(path)?;
    let server = Arc::new(Server {
        inputs,
        counts,
        next: AtomicU64::new(1),
        open: AtomicUsize::new(0),
    });
    thread::Builder::new()
        .name("listener".to_owned())
        .spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => server.accept(stream),
                    Err(error) => {
                        warn!("accept a client: {error}");
                        thread::sleep(GLANCE);
                    }
                }
            }
        })?;
    Ok(())
}

struct Server {
    inputs: Sender<Input>,
    counts: Counts,
    next: AtomicU64,
    open: AtomicUsize,
}

impl Server {
    fn accept(self: &Arc<Self>, stream: UnixStream) {
        let server = Arc::clone(self);
        if server.open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
            server.open.fetch_sub(1, Ordering::Relaxed);
            send(
                &stream,
                &Err(CniError::try_again("the agent has too many requests at a time")),
            );
            return;
        }
        let spawned = thread::Builder::new().name("client".to_owned()).spawn(move || {
            server.serve(&stream);
            server.open.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = spawned {
            self.open.fetch_sub(1, Ordering::Relaxed);
            warn!("serve a client: {error}");
        }
    }

    fn serve(&self, stream: &UnixStream) {
        let response = match check_peer(stream).and_then(|()| read_request(stream)) {
            Ok(Some((body, netns))) => {
                let (command, begun) = (body.command(), Instant::now());
                let Some(response) = self.ask(stream, body, netns) else {
                    return;
                };
                let code = response.as_ref().err().map(|error| error.code.0);
                self.counts.answered(command, code, begun.elapsed());
                response
            }
            Ok(None) => return,
            Err(error) => Err(error),
        };
        send(stream, &response);
    }

    /// Hands a request to the loop and waits for the answer, for as long as the client does.
    fn ask(
        &self,
        stream: &UnixStream,
        body: buoy_cni_spec::agent::Body,
        netns: Option<Netns>,
    ) -> Option<Response> {
        let (reply, answer) = bounded(1);
        let id = CallId(self.next.fetch_add(1, Ordering::Relaxed));
        self.inputs
            .send(Input::Call(Call {
                id,
                body,
                netns,
                reply,
            }))
            .ok()?;
        loop {
            match answer.recv_timeout(GLANCE) {
                Ok(response) => return Some(response),
                // The agent stops, or something replaced the request: the client asks again.
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if has_gone(stream) => {
                    self.inputs.send(Input::Gone(id)).ok();
                    return None;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

fn has_gone(stream: &UnixStream) -> bool {
    let mut byte = [0u8];
    matches!(
        recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT),
        Ok((_, 0))
    )
}

/// Only root and the agent's own user may ask.
fn check_peer(stream: &UnixStream) -> Result<(), CniError> {
    let denied = |msg: String| Err(CniError::new(ErrorCode::IO, msg).with_hint("run as root"));
    match getsockopt(stream, PeerCredentials) {
        Ok(peer) if peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw() => Ok(()),
        Ok(peer) => denied(format!("the agent does not serve user {}", peer.uid())),
        Err(error) => denied(format!("the agent cannot tell who asks: {error}")),
    }
}

type Asked = (buoy_cni_spec::agent::Body, Option<Netns>);

/// Reads one request; nothing, if the client said nothing.
fn read_request(stream: &UnixStream) -> Result<Option<Asked>, CniError> {
    let io = |e: std::io::Error| CniError::new(ErrorCode::IO, format!("read the request: {e}"));
    stream.set_read_timeout(Some(READ_TIME)).map_err(io)?;
    let mut decoder = Decoder::default();
    let mut netns = None;
    loop {
        let mut bytes = [0u8; 16 * 1024];
        let (count, fd) = receive(stream, &mut bytes).map_err(io)?;
        if let Some(fd) = fd {
            let opened = Netns::from_fd(fd)
                .map_err(|e| CniError::new(ErrorCode::INVALID_NETNS, format!("network namespace: {e}")))?;
            netns = Some(opened);
        }
        if count == 0 {
            debug!("a client closed its connection before its request was whole");
            return Ok(None);
        }
        decoder.push(&bytes[..count]);
        let body = decoder
            .next_body()
            .map_err(|e| CniError::new(ErrorCode::DECODE, e.to_string()))?;
        if let Some(body) = body {
            let request = decode_request(&body, crate::PROGRAM)?;
            return Ok(Some((request.body, netns)));
        }
    }
}

/// Receives bytes and at most one descriptor; further ones are closed.
fn receive(stream: &UnixStream, bytes: &mut [u8]) -> std::io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fd = fds.next().and_then(|mut fds| fds.next());
    if received.flags.contains(ReturnFlags::CTRUNC) {
        debug!("a client sent more descriptors than it should");
    }
    Ok((received.bytes, fd))
}

fn send(mut stream: &UnixStream, response: &Response) {
    let bytes = match frame::encode(response) {
        Ok(bytes) => bytes,
        Err(error) => {
            let error: Response = Err(CniError::generic(format!("the answer cannot be sent: {error}")));
            frame::encode(&error).unwrap_or_default()
        }
    };
    stream.set_write_timeout(Some(READ_TIME)).ok();
    if let Err(error) = stream.write_all(&bytes) {
        debug!("answer a client: {error}");
    }
}
