//! Requests to the API server, and its answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use buoy_api::meta::Extra;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use jiff::Timestamp;
use kube::Client;
use kube::client::Body;

use super::pace::Pace;
use super::proxies;
use super::settings::Settings;
use super::trouble::{Status, Trouble, unavailable};
use crate::Requests;
use crate::cause::Cause;
use crate::codec::objects::ApiResource;

/// Largest answer that is taken in, in bytes. A page of a list that is larger is asked for in parts.
const LARGEST_ANSWER: usize = 32 << 20;

/// Pause before a busy server is asked again.
const PAUSE: Duration = Duration::from_millis(250);

const JSON: &str = "application/json";
/// RFC 7386: what is named is set.
const MERGE: &str = "application/merge-patch+json";
/// Fields that one writer wants, whoever had them before. JSON is YAML.
const APPLY: &str = "application/apply-patch+yaml";

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    verb: Verb,
    url: String,
    body: Option<(&'static str, Vec<u8>)>,
    what: ApiResource,
}

/// What is asked for, as Kubernetes calls it, and by which method.
#[derive(Clone, Debug)]
struct Verb(&'static str, Method);

impl Request {
    pub(super) fn get(what: ApiResource, url: String) -> Self {
        Self::reading("get", what, url)
    }

    pub(super) fn list(what: ApiResource, url: String) -> Self {
        Self::reading("list", what, url)
    }

    pub(super) fn watch(what: ApiResource, url: String) -> Self {
        Self::reading("watch", what, url)
    }

    fn reading(verb: &'static str, what: ApiResource, url: String) -> Self {
        Self {
            verb: Verb(verb, Method::GET),
            url,
            body: None,
            what,
        }
    }

    pub(super) fn post(what: ApiResource, url: String, object: &Extra) -> Self {
        Self::with(Verb("create", Method::POST), JSON, what, url, object)
    }

    pub(super) fn put(what: ApiResource, url: String, object: &Extra) -> Self {
        Self::with(Verb("update", Method::PUT), JSON, what, url, object)
    }

    pub(super) fn delete(what: ApiResource, url: String, options: &Extra) -> Self {
        Self::with(Verb("delete", Method::DELETE), JSON, what, url, options)
    }

    pub(super) fn patch(what: ApiResource, url: String, patch: &Extra) -> Self {
        Self::with(Verb("patch", Method::PATCH), MERGE, what, url, patch)
    }

    pub(super) fn apply(what: ApiResource, url: String, fields: &Extra) -> Self {
        Self::with(Verb("patch", Method::PATCH), APPLY, what, url, fields)
    }

    fn with(verb: Verb, kind: &'static str, what: ApiResource, url: String, object: &Extra) -> Self {
        Self {
            verb,
            url,
            // Keys are texts and numbers are finite: this cannot fail.
            body: Some((kind, serde_json::to_vec(object).unwrap_or_default())),
            what,
        }
    }

    fn build(&self) -> Result<http::Request<Body>, Trouble> {
        let mut builder = http::Request::builder()
            .method(self.verb.1.clone())
            .uri(&self.url)
            .header(header::ACCEPT, JSON);
        if let Some((kind, _)) = &self.body {
            builder = builder.header(header::CONTENT_TYPE, *kind);
        }
        let body = self
            .body
            .as_ref()
            .map(|(_, bytes)| bytes.clone())
            .unwrap_or_default();
        builder
            .body(Body::from(body))
            .map_err(|error| Trouble::NotDone(Cause::refused(error)))
    }
}

/// How the API server is reached.
#[derive(Clone)]
struct Way {
    client: Client,
    /// The proxy, as messages show it.
    proxy: Option<String>,
}

/// The API server, and the way to it while there is one.
pub(super) struct Api {
    settings: Settings,
    timeout: Duration,
    silence: Duration,
    way: Mutex<Option<Way>>,
    pace: Pace,
    sent: Mutex<Requests>,
    /// Whether the last request got no answer.
    is_silent: AtomicBool,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Api {
    pub(super) fn new(settings: Settings, timeout: Duration, silence: Duration) -> Self {
        Self {
            pace: Pace::new(settings.rate),
            settings,
            timeout,
            silence,
            way: Mutex::new(None),
            sent: Mutex::default(),
            is_silent: AtomicBool::new(false),
        }
    }

    /// Sends a request, and reads its answer: an object.
    pub(super) async fn call(&self, request: &Request) -> Result<Extra, Trouble> {
        let body = self.answer(request).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Trouble::Lost(unavailable(format!("the answer is no object: {error}"))))
    }

    /// What was sent so far.
    pub(super) fn sent(&self) -> Requests {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, request: &Request) {
        let of = (request.verb.0, request.what.name());
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        *sent.entry(of).or_default() += 1;
    }

    /// Waits for the turn of a request. Leases have no time to wait: who renews his late loses his addresses.
    async fn turn(&self, request: &Request) {
        if request.what == ApiResource::LEASES {
            return;
        }
        let wait = self.pace.take(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    async fn answer(&self, request: &Request) -> Result<Vec<u8>, Trouble> {
        self.turn(request).await;
        let time = self.timeout;
        let exchange = async {
            let body = self.open(request).await?;
            collect(body).await
        };
        match tokio::time::timeout(time, exchange).await {
            Ok(result) => result,
            Err(_) => {
                self.answers(false);
                Err(self.late())
            }
        }
    }

    /// Begins a watch: its answer goes on for as long as it is read.
    pub(super) async fn begin(&self, request: &Request) -> Result<Body, Trouble> {
        self.turn(request).await;
        let time = self.timeout;
        match tokio::time::timeout(time, self.open(request)).await {
            Ok(result) => result,
            Err(_) => {
                self.answers(false);
                Err(self.late())
            }
        }
    }

    /// Sends a request; the body of its answer if that is a success. Who is no longer known comes again, once, with what
    /// the files say now; who comes too early waits a little.
    async fn open(&self, request: &Request) -> Result<Body, Trouble> {
        let (begun, mut is_renewed) = (Instant::now(), false);
        loop {
            match self.send(request).await {
                Err(Trouble::Unknown(_)) if !is_renewed => {
                    self.forget();
                    is_renewed = true;
                }
                Err(Trouble::Unknown(cause)) => return Err(self.unknown(cause).await),
                Err(Trouble::Busy(_)) if begun.elapsed() < self.timeout / 2 => {
                    tokio::time::sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }

    /// Why the server does not know this client. It says no more than that.
    async fn unknown(&self, cause: Cause) -> Trouble {
        let Some(since) = self.settings.expired(Timestamp::now()).await else {
            return Trouble::Unknown(cause);
        };
        let reason = cause.reason.lines().next().unwrap_or_default();
        Trouble::Unknown(Cause::refused(format!(
            "this client's certificate has expired, at {since}: {reason}\nrenew it in the kubeconfig, which is read again"
        )))
    }

    async fn send(&self, request: &Request) -> Result<Body, Trouble> {
        let Way { client, proxy } = self.way().await?;
        self.count(request);
        let response = client.send(request.build()?).await.map_err(|error| {
            // Certificates may have been renewed since.
            self.forget();
            self.answers(false);
            let trouble = Trouble::from(error);
            match &proxy {
                Some(proxy) => trouble.by_way_of(proxy),
                None => trouble,
            }
        })?;
        self.answers(true);
        let code = response.status();
        if code.is_success() {
            return Ok(response.into_body());
        }
        let body = collect(response.into_body()).await.unwrap_or_default();
        Err(Status::of_answer(code, &body).trouble(&request.what.name()))
    }

    async fn way(&self) -> Result<Way, Trouble> {
        if let Some(way) = self.lock().clone() {
            return Ok(way);
        }
        let config = self.settings.config().await;
        let mut config = config.map_err(|message| Trouble::NotDone(Cause::refused(message)))?;
        config.connect_timeout = Some(self.timeout);
        config.read_timeout = Some(self.silence);
        config.reset_reader_on_write = true;
        // Only who knows what the request does may send it twice.
        config.default_retry = false;
        let way = Way {
            proxy: config.proxy_url.as_ref().map(proxies::shown),
            client: Client::try_from(config).map_err(Trouble::from)?,
        };
        Ok(self.lock().get_or_insert(way).clone())
    }

    fn answers(&self, it_does: bool) {
        self.is_silent.store(!it_does, Ordering::Relaxed);
    }

    /// What is wrong if the last request got no answer. A watch is not told of it: a server that stands still, or that packets
    /// do not reach, does not end its connections.
    pub(super) fn silence(&self) -> Option<Trouble> {
        let is_silent = self.is_silent.load(Ordering::Relaxed);
        is_silent.then(|| self.late())
    }

    fn late(&self) -> Trouble {
        let way = self.lock();
        let proxy = way.as_ref().and_then(|way| way.proxy.as_deref());
        Trouble::late(self.timeout, proxy)
    }

    fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Way>> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn collect(body: Body) -> Result<Vec<u8>, Trouble> {
    match Limited::new(body, LARGEST_ANSWER).collect().await {
        Ok(collected) => Ok(collected.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => Err(Trouble::TooLarge),
        Err(error) => Err(Trouble::Lost(unavailable(error))),
    }
}

/// A code for events of a watch that are no changes.
pub(super) fn of_event(status: &Extra, what: &str) -> Trouble {
    let code = status
        .get("code")
        .and_then(serde_json::Value::as_u64)
        .unwrap_or_default();
    let code = u16::try_from(code)
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok());
    let body = serde_json::to_vec(status).unwrap_or_default();
    Status::of_answer(code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &body).trouble(what)
}
