//! An agent that does what a script says, one act for each connection.

use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use buoy_cni_spec::agent::{Body, Request, Response, decode_request};
use buoy_cni_spec::frame::{self, Decoder};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, recvmsg};

/// What to do with a request.
pub(crate) enum Act {
    Answer(Response),
    /// Send these bytes instead of an answer.
    Send(Vec<u8>),
    /// Close the connection.
    HangUp,
    /// Close the connection, stop listening, and come back after a while.
    Restart(Duration),
    /// Keep the client waiting until it gives up.
    Stall,
}

/// A request as it arrived.
pub(crate) struct Received {
    pub(crate) request: Request,
    /// Device and inode of the namespace that came with it.
    pub(crate) netns: Option<(u64, u64)>,
}

/// The running agent.
pub(crate) struct FakeAgent {
    thread: JoinHandle<Vec<Received>>,
}

impl FakeAgent {
    /// Listens at once; stops after the last act.
    pub(crate) fn start(socket: PathBuf, acts: Vec<Act>) -> Self {
        let listener = UnixListener::bind(&socket).unwrap();
        Self {
            thread: thread::spawn(move || serve(socket, listener, acts)),
        }
    }

    /// What it received, after all acts are done.
    pub(crate) fn received(self) -> Vec<Received> {
        self.thread.join().unwrap()
    }

    /// The one request that it received.
    pub(crate) fn only(self) -> Received {
        let mut received = self.received();
        assert_eq!(received.len(), 1);
        received.remove(0)
    }

    /// The body of the one request that it received.
    pub(crate) fn only_body(self) -> Body {
        self.only().request.body
    }
}

fn serve(socket: PathBuf, mut listener: UnixListener, acts: Vec<Act>) -> Vec<Received> {
    let mut received = Vec::new();
    for act in acts {
        let mut stream = accept(&listener);
        received.push(receive(&mut stream));
        match act {
            Act::Answer(response) => stream.write_all(&frame::encode(&response).unwrap()).unwrap(),
            Act::Send(bytes) => stream.write_all(&bytes).unwrap(),
            Act::HangUp => {}
            Act::Restart(pause) => {
                drop((stream, listener));
                fs::remove_file(&socket).unwrap();
                thread::sleep(pause);
                listener = UnixListener::bind(&socket).unwrap();
            }
            Act::Stall => assert_eq!(stream.read(&mut [0]).unwrap(), 0),
        }
    }
    drop(listener);
    fs::remove_file(&socket).unwrap();
    received
}

/// The next connection; a test whose client does not call fails, and does not hang.
fn accept(listener: &UnixListener) -> UnixStream {
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let called = poll(&mut fds, PollTimeout::from(60_000_u16)).unwrap();
    assert_eq!(called, 1, "nobody calls");
    listener.accept().unwrap().0
}

/// Reads a frame and the descriptor that came with its first bytes.
fn receive(stream: &mut UnixStream) -> Received {
    let mut buffer = [0; 4096];
    let mut space = nix::cmsg_space!([i32; 1]);
    let (count, netns) = {
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let message: RecvMsg<'_, '_, ()> = recvmsg(
            stream.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .unwrap();
        let netns = message.cmsgs().unwrap().find_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => Some(take_identity(fds[0])),
            _ => None,
        });
        (message.bytes, netns)
    };
    let mut decoder = Decoder::default();
    decoder.push(&buffer[..count]);
    loop {
        if let Some(body) = decoder.next_body().unwrap() {
            return Received {
                request: decode_request(&body, "fake agent").unwrap(),
                netns,
            };
        }
        let count = stream.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "the client closed within its request");
        decoder.push(&buffer[..count]);
    }
}

/// Device and inode of a received descriptor, which is closed.
fn take_identity(fd: i32) -> (u64, u64) {
    let metadata = fs::metadata(format!("/proc/self/fd/{fd}")).unwrap();
    nix::unistd::close(fd).unwrap();
    (metadata.dev(), metadata.ino())
}
