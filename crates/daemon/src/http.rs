//! Pages over HTTP, for Prometheus and for probes.
//!
//! Connections are few and short, and whoever comes when all are taken pushes out the one that has been there longest. So
//! neither a slow client nor many of them keep a probe from its answer.

mod server;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail};
use prometheus_client::registry::Registry;

use crate::metrics;

const PLAIN: &str = "text/plain; charset=utf-8";

/// Where pages are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A unix socket, for this user alone.
    Unix(PathBuf),
    /// An address and a port.
    Tcp(SocketAddr),
}

impl FromStr for Listen {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let address = text.parse().with_context(|| {
            format!("listen: {text}\nwrite the absolute path of a unix socket, or an address and a port: 127.0.0.1:9177 or [::1]:9177")
        })?;
        Ok(Self::Tcp(address))
    }
}

/// What a program shows.
pub trait Pages: Send + Sync + 'static {
    /// What to answer to a request for a path.
    fn answer(&self, path: &str) -> impl Future<Output = Answer> + Send;
}

/// An answer: its status, its type, and what it says.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    status: u16,
    kind: &'static str,
    body: String,
}

impl Answer {
    /// A few lines.
    pub fn plain(status: u16, body: impl Into<String>) -> Self {
        let mut body = body.into();
        body.push('\n');
        Self {
            status,
            kind: PLAIN,
            body,
        }
    }

    /// Everything in a registry.
    pub fn metrics(registry: &Registry) -> Self {
        match metrics::text(registry) {
            Ok(body) => Self {
                status: 200,
                kind: metrics::CONTENT_TYPE,
                body,
            },
            Err(error) => Self::plain(500, error.to_string()),
        }
    }

    /// What to answer to a path that has no page, where these have one.
    pub fn elsewhere(path: &str) -> Self {
        match path {
            "/" => Self::plain(200, "/metrics\n/healthz\n/readyz"),
            _ => Self::plain(404, "no such page: there are /metrics, /healthz and /readyz"),
        }
    }
}

/// Serves for as long as the process lives. Error: the place is taken, or cannot be had.
pub fn serve(listen: &Listen, pages: impl Pages) -> Result<()> {
    serve_on(Socket::bind(listen)?, pages)
}

/// The same on a listener that is bound already.
pub fn serve_tcp(listener: TcpListener, pages: impl Pages) -> Result<()> {
    serve_on(Socket::Tcp(listener), pages)
}

fn serve_on(socket: Socket, pages: impl Pages) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("serve metrics")?;
    thread::Builder::new().name("http".to_owned()).spawn(move || {
        if let Err(error) = runtime.block_on(server::run(socket, Arc::new(pages))) {
            tracing::error!("metrics and health are not served: {error}");
        }
    })?;
    Ok(())
}

/// Where it listens.
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Socket {
    fn bind(listen: &Listen) -> Result<Self> {
        match listen {
            Listen::Unix(path) => bind(path).map(Self::Unix),
            Listen::Tcp(address) => {
                let hint = "set another with listen";
                let bound = TcpListener::bind(address);
                let bound = bound.with_context(|| format!("listen for metrics: {address}\n{hint}"))?;
                Ok(Self::Tcp(bound))
            }
        }
    }
}

/// Binds a socket that only this user reaches. One that nobody answers on is replaced.
pub fn bind(path: &Path) -> Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("make directory: {}", dir.display()))?;
    }
    if UnixStream::connect(path).is_ok() {
        bail!(
            "another process answers on the socket: {}\nstop it, or set another socket",
            path.display()
        );
    }
    // Bound under another name first, so that the socket is never reachable with wider rights than its own.
    let fresh: PathBuf = path.with_extension("new");
    std::fs::remove_file(&fresh).ok();
    let listener = UnixListener::bind(&fresh).with_context(|| format!("socket: {}", path.display()))?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path).with_context(|| format!("socket: {}", path.display()))?;
    Ok(listener)
}
