//! Reading one record, and a set of them at one revision.

use buoy_api::meta::Extra;
use buoy_core::store::{Key, Prefix, Record, Reply, Revision, StoreError};
use serde_json::Value as Json;

use super::Shared;
use super::api::Request;
use super::trouble::{Trouble, unavailable};
use crate::codec::objects::{self, ApiResource, Collection, Place};

/// Objects in a page, unless they are so large that fewer must do.
const PAGE: u32 = 500;
/// How often a list begins anew because its revision was compacted in between.
const LISTS: u32 = 3;

impl Shared {
    /// Sends a request, and reads its answer.
    pub(super) async fn call(&self, request: &Request) -> Result<Extra, Trouble> {
        let answer = self.api.call(request).await;
        if answer.as_ref().is_err_and(Trouble::is_of_the_connection) {
            self.standing.doubt();
        }
        answer
    }

    pub(super) fn get(&self, key: &Key) -> Result<Reply, StoreError> {
        let place = self.place(key)?;
        let found = self.threads.wait(self.object(&place));
        let found = found.map_err(|trouble| self.error(trouble))?;
        let record = found.as_ref().and_then(|object| {
            self.known(place.resource, object);
            objects::record(key, place.resource, object)
        });
        Ok(Reply::Record(record))
    }

    pub(super) fn place(&self, key: &Key) -> Result<Place, StoreError> {
        objects::place(key, &self.layout).map_err(|bad| self.invalid(&bad.reason))
    }

    /// The object at a place, if there is one.
    pub(super) async fn object(&self, place: &Place) -> Result<Option<Extra>, Trouble> {
        match self.call(&Request::get(place.resource, place.path())).await {
            Ok(object) => Ok(Some(object)),
            Err(Trouble::Missing) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    pub(super) fn list(&self, prefix: &Prefix) -> Result<Reply, StoreError> {
        let collection = objects::collection(prefix, &self.layout);
        let mut listed = Err(Trouble::Gone);
        for _ in 0..LISTS {
            listed = self.threads.wait(self.list_once(&collection, prefix));
            if !matches!(listed, Err(Trouble::Gone)) {
                break;
            }
        }
        let (mut records, revision) = listed.map_err(|trouble| self.error(trouble))?;
        // Names sort as text, keys as what they mean.
        records.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Reply::List(records, revision))
    }

    async fn list_once(
        &self,
        collection: &Collection,
        prefix: &Prefix,
    ) -> Result<(Vec<Record>, Revision), Trouble> {
        let (mut records, mut size, mut next) = (Vec::new(), PAGE, None);
        let began = self.standing.history.begin();
        loop {
            let page = match self.page(collection, size, next.as_deref()).await {
                Err(Trouble::TooLarge) if size > 1 => {
                    size = (size / 4).max(1);
                    continue;
                }
                page => page?,
            };
            let items = page.items.iter().filter_map(Json::as_object);
            let items = items.filter_map(|item| self.known(collection.resource, item));
            let found = items.filter(|found| prefix.covers(&found.key));
            records.extend(found.filter_map(objects::Found::record));
            next = page.next;
            if next.is_none() {
                self.standing.history.heard(None, page.at, began);
                return Ok((records, page.at));
            }
        }
    }

    /// What an object stands for. Others than this project's and Calico's were put there by hand.
    pub(super) fn known(&self, resource: ApiResource, object: &Extra) -> Option<objects::Found> {
        let found = objects::read(resource, object);
        if let Some(found) = &found {
            self.seen.note(found);
        } else {
            let name = object.get("metadata").and_then(|metadata| metadata.get("name"));
            tracing::trace!(
                store = self.name,
                kind = resource.kind,
                ?name,
                "an object that is no record is passed over"
            );
        }
        found
    }

    /// One page, and how to ask for the next.
    pub(super) async fn page(
        &self,
        collection: &Collection,
        size: u32,
        next: Option<&str>,
    ) -> Result<Page, Trouble> {
        let url = match next {
            None => collection.url(&format!("limit={size}")),
            Some(next) => collection.url(&format!("limit={size}&continue={next}")),
        };
        let mut list = self.call(&Request::list(collection.resource, url)).await?;
        let at = objects::revision(&list)
            .ok_or_else(|| Trouble::Lost(unavailable("a list without a revision")))?;
        let next = list
            .get("metadata")
            .and_then(|metadata| metadata.get("continue")?.as_str());
        let next = next.filter(|next| !next.is_empty()).map(str::to_owned);
        let items = match list.remove("items") {
            Some(Json::Array(items)) => items,
            _ => Vec::new(),
        };
        Ok(Page {
            // Items of a list do not repeat what they are.
            items: items
                .into_iter()
                .map(|item| typed(collection.resource, item))
                .collect(),
            at,
            next,
        })
    }
}

/// A part of a list.
pub(super) struct Page {
    pub items: Vec<Json>,
    /// The revision of the whole list.
    pub at: Revision,
    next: Option<String>,
}

fn typed(resource: ApiResource, mut item: Json) -> Json {
    if let Json::Object(object) = &mut item {
        object.entry("kind").or_insert_with(|| resource.kind.into());
        object
            .entry("apiVersion")
            .or_insert_with(|| resource.api_version().into());
    }
    item
}
