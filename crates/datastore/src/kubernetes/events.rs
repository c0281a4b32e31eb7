//! Notes as events of pods: one request for each.

use buoy_core::news::Note;
use buoy_core::store::StoreError;

use super::Shared;
use super::api::Request;
use crate::codec::objects;

impl Shared {
    /// Writes an event, or counts another time of one. There are pods alone to look at.
    pub(super) fn tell(&self, note: &Note) -> Result<(), StoreError> {
        if !note.about.is_pod {
            return Ok(());
        }
        let node = self.layout.node.as_deref().unwrap_or("unknown");
        let request = if note.count > 1 {
            let (place, series) = objects::repetition(note);
            Request::patch(place.resource, place.path(), &series)
        } else {
            let (place, event) = objects::event(note, node);
            Request::post(place.resource, place.directory(), &event)
        };
        let told = self.threads.wait(self.api.call(&request));
        told.map(|_| ()).map_err(|trouble| self.error(trouble))
    }
}
