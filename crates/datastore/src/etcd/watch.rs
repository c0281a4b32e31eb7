//! A watch: one stream, with a watcher for each range of keys.
//!
//! A task takes answers from the stream into a short queue, and the caller from there. Where the caller is slow the task
//! stops reading, and etcd keeps what comes until it is asked for: memory is bounded on both sides.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_core::store::{Prefix, Revision};
use etcd_client::proto::{PbEvent, PbWatchResponse};
use etcd_client::{Error, WatchClient, WatchOptions, WatchStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Shared;
use super::read::{known_key, revision};
use super::trouble::{Trouble, of_cancellation, unavailable};
use crate::codec::{self, Range};
use crate::{Event, Watch, WatchError};

/// Answers of etcd that wait for the caller. Each has at most a few megabytes: larger ones come in fragments.
const QUEUE: usize = 4;
/// Most events that are handed on at a time.
const BATCH: usize = 512;

/// A watch on an etcd.
#[derive(Debug)]
pub(super) struct EtcdWatch {
    shared: Arc<Shared>,
    answers: mpsc::Receiver<Result<PbWatchResponse, Trouble>>,
    task: AbortHandle,
    watchers: Vec<Watcher>,
    /// Number of prefixes in the interest.
    prefixes: usize,
    pending: VecDeque<Step>,
}

/// One range of keys.
#[derive(Clone, Debug)]
struct Watcher {
    /// What etcd calls it.
    id: i64,
    /// Which prefix of the interest it belongs to.
    prefix: usize,
    range: Range,
    /// Up to here everything was handed on.
    reached: Revision,
}

/// What is next to be handed on.
#[derive(Debug)]
struct Step {
    watcher: usize,
    event: Option<PbEvent>,
    /// Where the watcher is after it, if that is known.
    reached: Option<Revision>,
}

impl EtcdWatch {
    pub(super) fn begin(shared: Arc<Shared>, interest: &[(Prefix, Revision)]) -> Result<Self, WatchError> {
        let mut watchers = Vec::new();
        for (prefix, (watched, after)) in interest.iter().enumerate() {
            let ranges = codec::ranges(watched).map_err(|bad| shared.invalid(&bad.reason))?;
            watchers.extend(ranges.into_iter().map(|range| Watcher {
                id: -1,
                prefix,
                range,
                reached: *after,
            }));
        }
        let begun = shared.threads.wait(begin(&shared, &mut watchers));
        let (stream, early) = begun.map_err(|trouble| shared.watch_error(trouble))?;
        let (sender, answers) = mpsc::channel(QUEUE);
        let task = shared.threads.spawn(receive(stream, sender)).abort_handle();
        let mut watch = Self {
            shared,
            answers,
            task,
            watchers,
            prefixes: interest.len(),
            pending: VecDeque::new(),
        };
        for answer in early {
            watch.take(answer)?;
        }
        Ok(watch)
    }

    /// Takes in an answer of etcd.
    fn take(&mut self, answer: PbWatchResponse) -> Result<(), WatchError> {
        if answer.canceled {
            return Err(self.shared.watch_error(end_of(&answer)));
        }
        let Some(watcher) = self
            .watchers
            .iter()
            .position(|watcher| watcher.id == answer.watch_id)
        else {
            return Ok(());
        };
        let header = answer.header.as_ref().map(|header| revision(header.revision));
        let mut events = answer.events.into_iter().peekable();
        if events.peek().is_none() {
            // Everything before it has been sent.
            self.pending.push_back(Step {
                watcher,
                event: None,
                reached: header,
            });
        }
        while let Some(event) = events.next() {
            let at = event_revision(&event);
            // Somebody else's transaction may write several records at one revision.
            let is_last_of_revision = match events.peek() {
                Some(next) => event_revision(next) > at,
                None => !answer.fragment,
            };
            self.pending.push_back(Step {
                watcher,
                event: Some(event),
                reached: is_last_of_revision.then_some(at),
            });
        }
        Ok(())
    }

    /// Hands on what is pending.
    fn give(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < BATCH
            && let Some(step) = self.pending.pop_front()
        {
            let watcher = &mut self.watchers[step.watcher];
            events.extend(step.event.and_then(|event| decoded(event, watcher.reached)));
            if let Some(reached) = step.reached {
                watcher.reached = watcher.reached.max(reached);
            }
        }
        events
    }
}

impl Watch for EtcdWatch {
    fn next(&mut self, timeout: Duration) -> Result<Vec<Event>, WatchError> {
        let deadline = Instant::now() + timeout;
        loop {
            let events = self.give();
            if !events.is_empty() {
                return Ok(events);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Self { shared, answers, .. } = self;
            match shared
                .threads
                .wait(async { tokio::time::timeout(left, answers.recv()).await })
            {
                Ok(Some(Ok(answer))) => self.take(answer)?,
                Ok(Some(Err(trouble))) => return Err(self.shared.watch_error(trouble)),
                Ok(None) => return Err(self.shared.watch_error(ended())),
                Err(_) => return Ok(Vec::new()),
            }
        }
    }

    fn reached(&self) -> Vec<Revision> {
        let of_prefix = |prefix| {
            let watchers = self.watchers.iter().filter(|watcher| watcher.prefix == prefix);
            watchers.map(|watcher| watcher.reached).min().unwrap_or_default()
        };
        (0..self.prefixes).map(of_prefix).collect()
    }
}

impl Drop for EtcdWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Begins a watcher for each range; also returns what came before the last of them had begun.
async fn begin(
    shared: &Shared,
    watchers: &mut [Watcher],
) -> Result<(Option<WatchStream>, Vec<PbWatchResponse>), Trouble> {
    if watchers.is_empty() {
        return Ok((None, Vec::new()));
    }
    let (stream, early) = match begin_at_member(shared, watchers).await {
        // The token may have expired: only other requests renew it. A new connection comes with a new one.
        Err(trouble) if trouble.is_denial() => begin_at_member(shared, watchers).await?,
        begun => begun?,
    };
    // A store that was restored from a copy has not come so far, and etcd would wait for it to. And where a deletion is
    // the very revision to which it is compacting, some releases leave it out of a watch that begins there.
    let reached = || watchers.iter().map(|watcher| watcher.reached);
    let edges = BTreeSet::from_iter(reached().min().into_iter().chain(reached().max()));
    for revision in edges.into_iter().filter(|revision| *revision > Revision(0)) {
        shared.has(revision, &watchers[0].range.start).await?;
    }
    Ok((Some(stream), early))
}

async fn begin_at_member(
    shared: &Shared,
    watchers: &mut [Watcher],
) -> Result<(WatchStream, Vec<PbWatchResponse>), Trouble> {
    let mut member = shared.members.present().await?;
    let time = shared.options.timeout;
    let begun = match tokio::time::timeout(time, create(&mut member.watch, watchers)).await {
        Ok(begun) => begun,
        Err(_) => Err(Trouble::late(time)),
    };
    begun.map_err(|trouble| shared.members.failed(&member, trouble))
}

/// Asks for the watchers and waits until etcd has begun all of them. It does so in the order in which it is asked.
async fn create(
    client: &mut WatchClient,
    watchers: &mut [Watcher],
) -> Result<(WatchStream, Vec<PbWatchResponse>), Trouble> {
    let mut stream: Option<WatchStream> = None;
    for watcher in watchers.iter() {
        let start = watcher.range.start.as_str();
        let options = options(watcher);
        match &mut stream {
            Some(stream) => stream.watch(start, Some(options)).await?,
            None => stream = Some(client.watch(start, Some(options)).await?),
        }
    }
    let mut stream = stream.ok_or_else(ended)?;
    let (mut begun, mut early) = (0, Vec::new());
    while begun < watchers.len() {
        let answer = next(&mut stream).await?;
        if answer.canceled {
            return Err(end_of(&answer));
        }
        if answer.created {
            watchers[begun].id = answer.watch_id;
            begun += 1;
        } else {
            early.push(answer);
        }
    }
    Ok((stream, early))
}

fn options(watcher: &Watcher) -> WatchOptions {
    WatchOptions::new()
        .with_range(watcher.range.end.as_str())
        .with_start_revision(watcher.reached.0.saturating_add(1).cast_signed())
        .with_progress_notify()
        .with_fragment()
}

async fn next(stream: &mut WatchStream) -> Result<PbWatchResponse, Trouble> {
    match stream.message().await {
        Ok(Some(answer)) => Ok(answer.0),
        Ok(None) => Err(ended()),
        Err(error) => Err(Error::into(error)),
    }
}

/// Takes answers from the stream until it ends, or nobody wants them any more.
async fn receive(stream: Option<WatchStream>, sender: mpsc::Sender<Result<PbWatchResponse, Trouble>>) {
    let Some(mut stream) = stream else {
        return sender.closed().await;
    };
    loop {
        let answer = next(&mut stream).await;
        let is_end = answer.is_err();
        if sender.send(answer).await.is_err() || is_end {
            return;
        }
    }
}

fn ended() -> Trouble {
    Trouble::Lost(unavailable("the watch ended"))
}

/// Why etcd ended a watcher.
fn end_of(answer: &PbWatchResponse) -> Trouble {
    if answer.compact_revision > 0 {
        return Trouble::Compacted;
    }
    of_cancellation(&answer.cancel_reason)
}

fn event_revision(event: &PbEvent) -> Revision {
    event
        .kv
        .as_ref()
        .map_or(Revision(0), |kv| revision(kv.mod_revision))
}

/// An event, if it is of a record of this project and not known already.
fn decoded(event: PbEvent, known: Revision) -> Option<Event> {
    let kv = event.kv?;
    let at = revision(kv.mod_revision);
    let key = known_key(&kv.key)?;
    if at <= known {
        return None;
    }
    // Versions begin at 1 and end with the record.
    Some(if kv.version == 0 {
        Event::Deleted(key, at)
    } else {
        Event::Put(codec::record(key, &kv.value, at))
    })
}
