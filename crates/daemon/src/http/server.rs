//! Connections: a few, each for a short time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::{Answer, Pages, Socket};

/// Connections at a time.
const CONNECTIONS: usize = 32;
/// Time for a client to send the head of its request.
const HEAD_TIME: Duration = Duration::from_secs(2);
/// Time for everything: the request, its answer, and the client's reading of it.
const LIFETIME: Duration = Duration::from_secs(10);
/// Longest head of a request, in bytes: the least that the library allows.
const LONGEST_HEAD: usize = 8 << 10;
/// Pause after no connection could be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts and answers. Error: the socket cannot be used.
pub(super) async fn run<P: Pages>(socket: Socket, pages: Arc<P>) -> io::Result<()> {
    let mut open = Open::default();
    match socket {
        Socket::Unix(listener) => {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::UnixListener::from_std(listener)?;
            loop {
                let accepted = listener.accept().await.map(|(stream, _)| stream);
                open.take(accepted, &pages).await;
            }
        }
        Socket::Tcp(listener) => {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let accepted = listener.accept().await.map(|(stream, _)| stream);
                open.take(accepted, &pages).await;
            }
        }
    }
}

/// Connections that are open, the oldest first.
#[derive(Default)]
struct Open(VecDeque<AbortHandle>);

impl Open {
    async fn take<S, P: Pages>(&mut self, accepted: io::Result<S>, pages: &Arc<P>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                warn!("accept who asks for metrics: {error}");
                return tokio::time::sleep(PAUSE).await;
            }
        };
        let Self(open) = self;
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let connection = tokio::spawn(converse(stream, Arc::clone(pages)));
        open.push_back(connection.abort_handle());
    }
}

async fn converse<S, P: Pages>(stream: S, pages: Arc<P>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(answer(&*pages, &request).await) }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(LONGEST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(LIFETIME, conversation).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("answer who asks for metrics: {error}"),
        Err(_) => debug!("somebody who asks for metrics is too slow"),
    }
}

async fn answer(pages: &impl Pages, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let answer = match *request.method() {
        Method::GET | Method::HEAD => pages.answer(request.uri().path()).await,
        _ => Answer::plain(405, "nothing can be changed here: ask with GET"),
    };
    let mut response = Response::new(Full::from(answer.body));
    if let Ok(status) = answer.status.try_into() {
        *response.status_mut() = status;
    }
    let kind = header::HeaderValue::from_static(answer.kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
