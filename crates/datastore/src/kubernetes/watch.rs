//! A watch: one answer of the server for each collection, for as long as it lasts.
//!
//! The server ends such an answer whenever it likes; then the next begins where it was. It says that its past is gone by an
//! answer or by an event, depending on when it notices.

mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use buoy_core::store::{Prefix, Revision};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Shared;
use super::trouble::{Trouble, unavailable};
use crate::codec::objects::{self, Collection};
use crate::{Event, Watch, WatchError};
use stream::{Change, Stream};

/// Batches of changes that wait for the caller; each is what came in one piece.
const QUEUE: usize = 16;
/// Most events that are handed on at a time.
const BATCH: usize = 512;

/// What a stream says.
type News = (usize, Result<Vec<Change>, Trouble>);

/// A watch on an API server.
#[derive(Debug)]
pub(super) struct KubernetesWatch {
    shared: Arc<Shared>,
    news: mpsc::Receiver<News>,
    tasks: Vec<AbortHandle>,
    /// What was asked for, and up to where it was handed on.
    interest: Vec<(Prefix, Revision)>,
    /// For each stream, which of the interest it serves.
    served: Vec<Vec<usize>>,
    pending: VecDeque<(usize, Change)>,
}

impl KubernetesWatch {
    pub(super) fn begin(shared: Arc<Shared>, interest: &[(Prefix, Revision)]) -> Result<Self, WatchError> {
        let mut served: BTreeMap<Collection, Vec<usize>> = BTreeMap::new();
        for (index, (prefix, _)) in interest.iter().enumerate() {
            let collection = objects::collection(prefix, &shared.layout);
            served.entry(collection).or_default().push(index);
        }
        let streams: Vec<Stream> = served
            .iter()
            .map(|(collection, indices)| {
                let from = indices.iter().map(|index| interest[*index].1).min();
                Stream::new(Arc::clone(&shared), collection.clone(), from.unwrap_or_default())
            })
            .collect();
        let begun = shared.threads.wait(begin(&shared, streams, interest));
        let streams = begun.map_err(|trouble| shared.watch_error(trouble))?;
        let (sender, news) = mpsc::channel(QUEUE);
        let spawn = |(number, stream): (usize, Stream)| {
            let task = run(number, stream, sender.clone());
            shared.threads.spawn(task).abort_handle()
        };
        let tasks = streams.into_iter().enumerate().map(spawn).collect();
        // The streams' own senders are the last.
        drop(sender);
        Ok(Self {
            news,
            tasks,
            interest: interest.to_vec(),
            served: served.into_values().collect(),
            pending: VecDeque::new(),
            shared,
        })
    }

    /// Hands on what is pending.
    fn give(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < BATCH
            && let Some((stream, change)) = self.pending.pop_front()
        {
            let at = change.revision();
            self.shared.standing.history.came_to(at);
            let known = |index: &usize| {
                let (prefix, reached) = &self.interest[*index];
                *reached < at && change.key().is_some_and(|key| prefix.covers(key))
            };
            if self.served[stream].iter().any(known) {
                events.extend(change.event());
            }
            for index in &self.served[stream] {
                let reached = &mut self.interest[*index].1;
                *reached = (*reached).max(at);
            }
        }
        events
    }
}

impl Watch for KubernetesWatch {
    fn next(&mut self, timeout: Duration) -> Result<Vec<Event>, WatchError> {
        let deadline = Instant::now() + timeout;
        loop {
            let events = self.give();
            if !events.is_empty() {
                return Ok(events);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Self { shared, news, .. } = self;
            let heard = async { tokio::time::timeout(left, news.recv()).await };
            match shared.threads.wait(heard) {
                Ok(Some((stream, Ok(changes)))) => {
                    self.pending
                        .extend(changes.into_iter().map(|change| (stream, change)));
                }
                Ok(Some((_, Err(trouble)))) => return Err(self.shared.watch_error(trouble)),
                // A watch on nothing has nobody to say anything.
                Ok(None) if self.tasks.is_empty() => std::thread::sleep(left),
                Ok(None) => {
                    return Err(self
                        .shared
                        .watch_error(Trouble::Lost(unavailable("the watch ended"))));
                }
                Err(_) => {
                    let silence = self.shared.api.silence();
                    return silence.map_or(Ok(Vec::new()), |trouble| Err(self.shared.watch_error(trouble)));
                }
            }
            if left.is_zero() {
                return Ok(self.give());
            }
        }
    }

    fn reached(&self) -> Vec<Revision> {
        self.interest.iter().map(|(_, reached)| *reached).collect()
    }
}

impl Drop for KubernetesWatch {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    /// Sees that the store has come so far: a watch from the future would wait for it, and miss what happens until then.
    async fn has_come_to(&self, from: Revision) -> Result<(), Trouble> {
        if self.look().await? < from {
            return Err(Trouble::Gone);
        }
        Ok(())
    }
}

/// Begins all streams at once, and sees that the server has come as far as they begin.
async fn begin(
    shared: &Arc<Shared>,
    streams: Vec<Stream>,
    interest: &[(Prefix, Revision)],
) -> Result<Vec<Stream>, Trouble> {
    // To the server, zero is the present; here it is before the first record.
    if interest.iter().any(|(_, from)| *from == Revision(0)) {
        return Err(Trouble::Gone);
    }
    let beginning: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            shared.threads.spawn(async move {
                let begun = stream.begin().await;
                begun.map(|()| stream)
            })
        })
        .collect();
    let newest = interest.iter().map(|(_, from)| *from).max();
    if let Some(newest) = newest {
        shared.has_come_to(newest).await?;
    }
    let mut begun = Vec::new();
    for stream in beginning {
        let stream = stream.await;
        begun.push(stream.map_err(|error| Trouble::Lost(unavailable(error)))??);
    }
    Ok(begun)
}

/// Hands on what a stream says, until it fails or nobody wants to know.
async fn run(number: usize, mut stream: Stream, sender: mpsc::Sender<News>) {
    loop {
        let changes = stream.next().await;
        let is_end = changes.is_err();
        if sender.send((number, changes)).await.is_err() || is_end {
            return;
        }
    }
}
