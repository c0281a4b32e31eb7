//! Notes as events of pods: one request for each.

use buoy_core::news::Note;
use buoy_core::store::StoreError;

use super::Shared;
use super::api::Request;
use super::trouble::Trouble;
use crate::codec::objects;

impl Shared {
    /// Writes an event, or counts another time of one. There are pods alone to look at.
    pub(super) fn tell(&self, note: &Note) -> Result<(), StoreError> {
        if !note.about.is_pod {
            return Ok(());
        }
        let told = self.threads.wait(self.told(note));
        told.map_err(|trouble| self.error(trouble))
    }

    async fn told(&self, note: &Note) -> Result<(), Trouble> {
        if note.count > 1 {
            let (place, series) = objects::repetition(note);
            match self
                .api
                .call(&Request::patch(place.resource, place.path(), &series))
                .await
            {
                // What was to be written first never came here, or is forgotten by now.
                Err(Trouble::Missing) => {}
                counted => return counted.map(drop),
            }
        }
        let node = self.layout.node.as_deref().unwrap_or("unknown");
        let (place, event) = objects::event(note, node);
        let written = self
            .api
            .call(&Request::post(place.resource, place.directory(), &event))
            .await;
        written.map(drop)
    }
}
