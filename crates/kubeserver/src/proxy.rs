//! A proxy as companies put before their servers: it knows CONNECT, and what goes through it is none of its business.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::Result;

/// Longest request that is read.
const LONGEST: usize = 8 << 10;

/// A running proxy. All that goes through it ends with it.
#[derive(Debug)]
pub struct ConnectProxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Whatever name it is asked for, it leads there.
    server: SocketAddr,
    is_over: AtomicBool,
    asked: Mutex<Vec<String>>,
    refusal: Mutex<Option<&'static str>>,
    open: Mutex<Vec<TcpStream>>,
}

impl ConnectProxy {
    /// One on an address that nobody else uses, before a server.
    pub fn start(host: IpAddr, server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((host, 0))?;
        let shared = Arc::new(Shared {
            server,
            is_over: AtomicBool::new(false),
            asked: Mutex::default(),
            refusal: Mutex::default(),
            open: Mutex::default(),
        });
        let seen = Arc::clone(&shared);
        Ok(Self {
            address: listener.local_addr()?,
            shared,
            accepting: Some(thread::spawn(move || accept(&listener, &seen))),
        })
    }

    /// What it was asked so far: the heads of all requests.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.shared.asked).clone()
    }

    /// Answers like this from now on (`403 Forbidden`), and ends what goes through it.
    pub fn refuse(&self, status: &'static str) {
        *lock(&self.shared.refusal) = Some(status);
        self.shared.cut();
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // It waits for somebody.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.shared.cut();
    }
}

impl Shared {
    fn cut(&self) {
        for stream in lock(&self.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Reads what is asked, and does it.
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        lock(&self.asked).push(head(&mut client)?);
        if let Some(status) = *lock(&self.refusal) {
            return write!(client, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        }
        let mut server = TcpStream::connect(self.server)?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        lock(&self.open).extend([client.try_clone()?, server.try_clone()?]);
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        let upward = thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
        let _ = io::copy(&mut server, &mut client);
        let _ = client.shutdown(Shutdown::Both);
        let _ = upward.join();
        Ok(())
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        let shared = Arc::clone(shared);
        // A client that goes away ends its own connection alone.
        thread::spawn(move || client.map(|client| shared.serve(client)));
    }
}

/// All up to the empty line. A client says no more before it has an answer.
fn head(client: &mut TcpStream) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && head.len() < LONGEST {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
