//! The members of an etcd, and connections to them.
//!
//! One client a member, so that it is known which of them was asked, and whether a request was sent at all. All requests
//! go to one member until it fails; then to the next.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, KvClient, TlsOptions, WatchClient};
use jiff::Timestamp;

use super::Options;
use super::settings::{Endpoint, Password, Settings};
use super::trouble::{Trouble, is_without_users};
use crate::certificate;

/// Largest answer that is taken in, in bytes. A page of a list that is larger is asked for in parts.
const LARGEST_ANSWER: usize = 32 << 20;

/// Silence of a connection after which the member is asked whether it lives, and how long it has to say so. etcd hangs
/// up on clients that ask more often than every five seconds.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(3));

/// The members, and which of them is asked.
#[derive(Debug)]
pub(super) struct Members {
    settings: Settings,
    options: Options,
    slots: Vec<Slot>,
    present: AtomicUsize,
}

/// The client of one member, while there is one.
#[derive(Default)]
struct Slot(Mutex<Option<Client>>);

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot")
            .field("is_connected", &self.lock().is_some())
            .finish()
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Client>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member that can be asked.
pub(super) struct Connected {
    member: usize,
    pub kv: KvClient,
    pub watch: WatchClient,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected")
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

/// How often and how long a request is tried.
#[derive(Clone, Copy, Debug)]
struct Patience {
    deadline: Instant,
    each: Duration,
}

impl Members {
    /// `first` says which member is asked first, for clients to be spread over all.
    pub(super) fn new(settings: Settings, options: Options, first: usize) -> Self {
        let slots: Vec<_> = settings.endpoints.iter().map(|_| Slot::default()).collect();
        Self {
            present: AtomicUsize::new(first % slots.len().max(1)),
            settings,
            options,
            slots,
        }
    }

    /// Asks a question: where a member fails, the next is asked, each at most once.
    pub(super) async fn ask<T>(
        &self,
        question: impl AsyncFn(Connected) -> Result<T, Error>,
    ) -> Result<T, Trouble> {
        self.attempt(Trouble::is_of_the_member, question).await
    }

    /// Has something done: the next member is asked only where the one before surely has not begun.
    pub(super) async fn order<T>(
        &self,
        order: impl AsyncFn(Connected) -> Result<T, Error>,
    ) -> Result<T, Trouble> {
        self.attempt(|trouble| matches!(trouble, Trouble::NotDone(_)), order)
            .await
    }

    async fn attempt<T>(
        &self,
        may_go_on: impl Fn(&Trouble) -> bool,
        call: impl AsyncFn(Connected) -> Result<T, Error>,
    ) -> Result<T, Trouble> {
        let patience = Patience {
            deadline: Instant::now() + self.options.timeout * 2,
            each: self.options.timeout,
        };
        let mut left = self.slots.len();
        loop {
            let member = self.present.load(Ordering::Relaxed);
            let result = self.one_attempt(member, patience, &call).await;
            left -= 1;
            let Err(trouble) = result else { return result };
            if trouble.is_of_the_member() {
                self.give_up(member);
            }
            if left == 0 || !may_go_on(&trouble) || Instant::now() >= patience.deadline {
                return Err(trouble);
            }
        }
    }

    async fn one_attempt<T>(
        &self,
        member: usize,
        patience: Patience,
        call: &impl AsyncFn(Connected) -> Result<T, Error>,
    ) -> Result<T, Trouble> {
        let time = patience
            .each
            .min(patience.deadline.saturating_duration_since(Instant::now()));
        let connected = match tokio::time::timeout(time, self.connect(member)).await {
            Ok(connected) => connected.map_err(|trouble| self.explained(member, trouble))?,
            // A client that did not come to be has sent nothing of the request.
            Err(_) => return Err(Trouble::NotDone(Trouble::late(time).cause())),
        };
        let called = match tokio::time::timeout(time, call(connected)).await {
            Ok(result) => result.map_err(Trouble::from),
            Err(_) => Err(Trouble::late(time)),
        };
        called.map_err(|trouble| self.explained(member, trouble))
    }

    /// Says of a failure what it may have to do with this client's certificate.
    fn explained(&self, member: usize, trouble: Trouble) -> Trouble {
        if !self.settings.endpoints[member].is_secure {
            return trouble;
        }
        let own = self.settings.tls.identity.as_ref();
        let expired = own.and_then(|(cert, _)| {
            let since = certificate::expired(&fs::read(cert).ok()?, Timestamp::now())?;
            Some((cert.as_path(), since))
        });
        trouble.by_tls(expired)
    }

    /// The member that is asked at present.
    pub(super) async fn present(&self) -> Result<Connected, Trouble> {
        let member = self.present.load(Ordering::Relaxed);
        let connected = tokio::time::timeout(self.options.timeout, self.connect(member));
        let result = connected
            .await
            .unwrap_or_else(|_| Err(Trouble::late(self.options.timeout)));
        if result.as_ref().is_err_and(Trouble::is_of_the_member) {
            self.give_up(member);
        }
        result.map_err(|trouble| self.explained(member, trouble))
    }

    /// Takes in that a member failed. Where another may do better its connection goes, and the next member is asked.
    pub(super) fn failed(&self, connected: &Connected, trouble: Trouble) -> Trouble {
        if trouble.is_of_the_member() || trouble.is_denial() {
            self.give_up(connected.member);
        }
        self.explained(connected.member, trouble)
    }

    fn give_up(&self, member: usize) {
        *self.slots[member].lock() = None;
        let next = (member + 1) % self.slots.len();
        // Whoever else saw it fail has chosen already.
        let _ = self
            .present
            .compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn connect(&self, member: usize) -> Result<Connected, Trouble> {
        let known = self.slots[member].lock().clone();
        let client = match known {
            Some(client) => client,
            None => {
                let client = self.client(&self.settings.endpoints[member]).await?;
                self.slots[member].lock().get_or_insert(client).clone()
            }
        };
        Ok(Connected {
            member,
            kv: client.kv_client().max_decoding_message_size(LARGEST_ANSWER),
            watch: client.watch_client().max_decoding_message_size(LARGEST_ANSWER),
        })
    }

    async fn client(&self, endpoint: &Endpoint) -> Result<Client, Trouble> {
        let url = [endpoint.to_string()];
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.options.timeout)
            .with_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1)
            .with_keep_alive_while_idle(false)
            // A member that lost its leader would keep a watch waiting for ever.
            .with_require_leader(true);
        if endpoint.is_secure {
            options = options.with_tls(self.tls()?);
        }
        let Some((user, password)) = self.credentials()? else {
            return Ok(Client::connect(url, Some(options)).await?);
        };
        let known = options
            .clone()
            .with_user(user, password)
            .with_auto_token_refresh(true);
        match Client::connect(&url, Some(known)).await {
            Err(error) if is_without_users(&error) => Ok(Client::connect(url, Some(options)).await?),
            result => Ok(result?),
        }
    }

    fn tls(&self) -> Result<TlsOptions, Trouble> {
        let tls = &self.settings.tls;
        let mut options = TlsOptions::new();
        options = match &tls.ca {
            Some(ca) => options.ca_certificate(Certificate::from_pem(read("CA certificate of etcd", ca)?)),
            None => options.with_native_roots(),
        };
        if let Some((cert, key)) = &tls.identity {
            let cert = read("certificate for etcd", cert)?;
            options = options.identity(Identity::from_pem(cert, read("key for etcd", key)?));
        }
        Ok(options)
    }

    fn credentials(&self) -> Result<Option<(String, String)>, Trouble> {
        let Some(user) = &self.settings.user else {
            return Ok(None);
        };
        let password = match &user.password {
            Password::Known(password) => password.clone(),
            Password::File(path) => {
                let text = fs::read_to_string(path);
                let text = text.map_err(|error| Trouble::file("password for etcd", path, &error))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
        };
        Ok(Some((user.name.clone(), password)))
    }
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>, Trouble> {
    fs::read(path).map_err(|error| Trouble::file(what, path, &error))
}
