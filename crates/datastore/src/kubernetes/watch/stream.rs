//! The changes of one collection, as they come.

use std::sync::Arc;
use std::time::Duration;

use buoy_api::meta::Extra;
use buoy_core::store::{Key, Revision};
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Deserialize;

use super::super::Shared;
use super::super::api::{Request, of_event};
use super::super::trouble::{Trouble, unavailable};
use crate::Event;
use crate::codec::objects::{self, Collection, Found};

/// Largest event that is taken in, in bytes: more than the server keeps in one object.
const LARGEST_EVENT: usize = 16 << 20;
/// Pause before an answer that ended is asked for again.
const PAUSE: Duration = Duration::from_millis(200);

/// One step of a stream.
#[derive(Debug)]
pub(super) enum Change {
    /// An object was written, and stands for this now.
    Written(Box<Found>),
    /// An object was deleted.
    Deleted(Key, Revision),
    /// Everything up to here has been said.
    Reached(Revision),
}

impl Change {
    pub(super) fn revision(&self) -> Revision {
        match self {
            Self::Written(found) => found.revision,
            Self::Deleted(_, at) | Self::Reached(at) => *at,
        }
    }

    pub(super) fn key(&self) -> Option<&Key> {
        match self {
            Self::Written(found) => Some(&found.key),
            Self::Deleted(key, _) => Some(key),
            Self::Reached(_) => None,
        }
    }

    /// What it is to a watcher. An object that stands for no record now may have stood for one.
    pub(super) fn event(self) -> Option<Event> {
        match self {
            Self::Written(found) => {
                let (key, at) = (found.key.clone(), found.revision);
                Some(found.record().map_or(Event::Deleted(key, at), Event::Put))
            }
            Self::Deleted(key, at) => Some(Event::Deleted(key, at)),
            Self::Reached(_) => None,
        }
    }
}

/// An event as the server writes it.
#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "type")]
    kind: String,
    object: Extra,
}

/// The answers to one question, one after the other.
#[derive(Debug)]
pub(super) struct Stream {
    shared: Arc<Shared>,
    collection: Collection,
    reached: Revision,
    body: Option<Body>,
    /// The beginning of an event whose end has not come.
    partial: Vec<u8>,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, collection: Collection, reached: Revision) -> Self {
        Self {
            shared,
            collection,
            reached,
            body: None,
            partial: Vec::new(),
        }
    }

    /// Asks for what comes after what is known.
    pub(super) async fn begin(&mut self) -> Result<(), Trouble> {
        let url = self.collection.url(&format!(
            "watch=true&allowWatchBookmarks=true&resourceVersion={}",
            self.reached
        ));
        self.partial.clear();
        let request = Request::watch(self.collection.resource, url);
        let begun = self.shared.api.begin(&request).await;
        if begun.as_ref().is_err_and(Trouble::is_of_the_connection) {
            self.shared.standing.doubt();
        }
        self.body = Some(begun?);
        Ok(())
    }

    /// The next changes, never none.
    pub(super) async fn next(&mut self) -> Result<Vec<Change>, Trouble> {
        loop {
            let changes = match self.piece().await? {
                Some(piece) => self.take(&piece)?,
                None => {
                    // It had enough, or is about to end: then its connections are gone in a moment.
                    tokio::time::sleep(PAUSE).await;
                    self.begin().await?;
                    // It may be another server that answers now.
                    self.shared.has_come_to(self.reached).await?;
                    continue;
                }
            };
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }

    /// What comes next, in whatever pieces; `None` at the end.
    async fn piece(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        match body.frame().await {
            Some(Ok(frame)) => Ok(Some(
                frame.into_data().map(|data| data.to_vec()).unwrap_or_default(),
            )),
            Some(Err(error)) => {
                self.shared.standing.doubt();
                Err(Trouble::Lost(unavailable(format!(
                    "the watch broke off: {error}"
                ))))
            }
            None => Ok(None),
        }
    }

    fn take(&mut self, piece: &[u8]) -> Result<Vec<Change>, Trouble> {
        self.partial.extend_from_slice(piece);
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else {
            if self.partial.len() > LARGEST_EVENT {
                return Err(Trouble::TooLarge);
            }
            return Ok(Vec::new());
        };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut changes = Vec::new();
        for line in lines {
            changes.extend(self.change(line)?);
        }
        Ok(changes)
    }

    fn change(&mut self, line: &[u8]) -> Result<Option<Change>, Trouble> {
        let Wire { kind, object } = serde_json::from_slice(line).map_err(|error| {
            Trouble::Lost(unavailable(format!("the watch says what is no event: {error}")))
        })?;
        if kind == "ERROR" {
            return Err(of_event(&object, &self.collection.resource.name()));
        }
        let at = objects::revision(&object).unwrap_or_default();
        if at <= self.reached {
            return Ok(None);
        }
        self.reached = at;
        if kind == "BOOKMARK" {
            return Ok(Some(Change::Reached(at)));
        }
        let Some(found) = self.shared.known(self.collection.resource, &object) else {
            return Ok(Some(Change::Reached(at)));
        };
        Ok(Some(match kind.as_str() {
            "DELETED" => {
                self.shared.seen.take(&found.key);
                Change::Deleted(found.key, at)
            }
            _ => Change::Written(Box::new(found)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use buoy_core::store::Prefix;

    use super::super::super::{Kubernetes, Options};
    use super::*;

    fn stream() -> Stream {
        let store = Kubernetes::open("kubernetes:/nowhere", |_| None, Options::default()).unwrap();
        let collection = objects::collection(&Prefix::Reservations, &store.shared.layout);
        Stream::new(Arc::clone(&store.shared), collection, Revision(5))
    }

    fn event(kind: &str, name: &str, at: u64) -> String {
        format!(
            r#"{{"type": "{kind}", "object": {{"metadata": {{"name": "{name}", "resourceVersion": "{at}"}}, "spec": {{}}}}}}"#
        )
    }

    fn revisions(changes: &[Change]) -> Vec<u64> {
        changes.iter().map(|change| change.revision().0).collect()
    }

    #[test]
    fn events_come_in_any_pieces_and_each_once() {
        let mut stream = stream();
        let text = [
            event("ADDED", "a", 5),
            event("ADDED", "b", 6),
            event("DELETED", "b", 7),
        ];
        let text = format!("{}\n", text.join("\n"));
        let mut changes = Vec::new();
        for piece in text.as_bytes().chunks(7) {
            changes.extend(stream.take(piece).unwrap());
        }
        assert_eq!(revisions(&changes), [6, 7], "what is known does not come again");
        assert_eq!(changes[1].key(), Some(&Key::Reservation("b".to_owned())));
        let bookmark = event("BOOKMARK", "", 9) + "\n";
        assert_eq!(revisions(&stream.take(bookmark.as_bytes()).unwrap()), [9]);
    }

    #[test]
    fn an_event_without_an_end_is_not_taken_in_for_ever() {
        let mut stream = stream();
        let piece = vec![b'x'; LARGEST_EVENT / 2];
        assert!(stream.take(&piece).unwrap().is_empty());
        assert!(stream.take(&piece).unwrap().is_empty());
        assert_eq!(stream.take(b"x").unwrap_err(), Trouble::TooLarge);
    }

    #[test]
    fn what_is_no_event_ends_the_watch() {
        let lost = stream().take(b"<html>\n").unwrap_err();
        assert!(matches!(lost, Trouble::Lost(_)), "{lost:?}");
        let gone = br#"{"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}"#;
        let mut line = gone.to_vec();
        line.push(b'\n');
        assert_eq!(stream().take(&line).unwrap_err(), Trouble::Gone);
    }
}
