//! Writing: one operation, one request on the revision that it was meant for.

use buoy_api::meta::Extra;
use buoy_api::names::field_manager;
use buoy_core::store::{Key, Part, Reply, Revision, StoreError, StoreOp, Value, Writer};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::Shared;
use super::api::Request;
use super::trouble::{Trouble, unavailable};
use crate::cause::Cause;
use crate::codec::objects::{self, ApiResource, Form, Place};

impl Shared {
    pub(super) fn write(&self, key: &Key, op: &StoreOp) -> Result<Reply, StoreError> {
        let place = self.place(key)?;
        let stands = self.threads.wait(self.see_that_it_stands());
        stands.map_err(|trouble| self.error(trouble))?;
        let written = match op {
            StoreOp::Create(_, value) => self.create(key, &place, value)?,
            StoreOp::Update(_, _, Revision(0)) | StoreOp::Delete(_, Revision(0)) => {
                return Ok(Reply::Conflict);
            }
            StoreOp::Update(_, value, at) => self.update(key, &place, value, *at)?,
            StoreOp::Delete(_, at) => return self.delete(key, &place, *at),
            StoreOp::Apply(_, writer, part) => self.apply(key, &place, writer, part)?,
            StoreOp::Get(_) | StoreOp::List(_) => return Err(self.invalid(&"a read is no write")),
        };
        if let Ok(at) = written {
            self.note_written(key, at);
        }
        self.reply(key, written, Reply::Written)
    }

    fn create(
        &self,
        key: &Key,
        place: &Place,
        value: &Value,
    ) -> Result<Result<Revision, Trouble>, StoreError> {
        if objects::is_derived(key) {
            return self.create_in(key, place, value);
        }
        let form = objects::creation(place.resource, key, value).map_err(|bad| self.invalid(&bad))?;
        let post = |what, _, object: &Extra| Request::post(what, strict(place, place.directory()), object);
        Ok(match self.send(place, form, post) {
            // Of what is made, only the namespace can be missing.
            Err(Trouble::Missing) => Err(Trouble::NotDone(Cause::refused(format!(
                "there is no namespace {}\nmake it: kubectl apply -f deploy/rbac.yaml",
                place.namespace.as_deref().unwrap_or_default()
            )))),
            created => created,
        })
    }

    /// In an object that others made: as it was just seen or, if that is out of date, as it is.
    fn create_in(
        &self,
        key: &Key,
        place: &Place,
        value: &Value,
    ) -> Result<Result<Revision, Trouble>, StoreError> {
        if let Some(at) = self.seen.take(key) {
            let form =
                objects::update(place.resource, key, value, None, at).map_err(|bad| self.invalid(&bad))?;
            match self.send(place, form, Request::put) {
                Err(Trouble::Conflict | Trouble::Missing) => {}
                done => return Ok(done),
            }
        }
        match self.threads.wait(self.object(place)) {
            Ok(Some(object)) => self.put_into(key, place, value, &object),
            Ok(None) => Ok(Err(Trouble::NotDone(Cause::refused(format!(
                "Kubernetes has no {} that {key} could be of",
                place.resource.kind
            ))))),
            // It was only a question.
            Err(trouble) => Ok(Err(trouble.not_done())),
        }
    }

    fn put_into(
        &self,
        key: &Key,
        place: &Place,
        value: &Value,
        object: &Extra,
    ) -> Result<Result<Revision, Trouble>, StoreError> {
        let found = objects::read(place.resource, object);
        if found.is_some_and(|found| found.key != *key || found.value.is_some()) {
            return Ok(Err(Trouble::Conflict));
        }
        let at = objects::revision(object).unwrap_or_default();
        let form = objects::update(place.resource, key, value, Some(object), at)
            .map_err(|bad| self.invalid(&bad))?;
        Ok(self.send(place, form, Request::put))
    }

    fn update(
        &self,
        key: &Key,
        place: &Place,
        value: &Value,
        at: Revision,
    ) -> Result<Result<Revision, Trouble>, StoreError> {
        let mut into = None;
        if let Key::Node(_) = key {
            into = match self.threads.wait(self.object(place)) {
                Ok(into) => into,
                Err(trouble) => return Ok(Err(trouble.not_done())),
            };
            // What is to be written depends on what is there: it must be what the caller knows.
            if into.as_ref().and_then(objects::revision) != Some(at) {
                return Ok(Err(Trouble::Conflict));
            }
        }
        let form = objects::update(place.resource, key, value, into.as_ref(), at)
            .map_err(|bad| self.invalid(&bad))?;
        Ok(self.send(place, form, Request::put))
    }

    fn delete(&self, key: &Key, place: &Place, at: Revision) -> Result<Reply, StoreError> {
        let deleted = match objects::removal(key, at) {
            Some(form) => self.send(place, form, Request::put).map(|_| ()),
            None => {
                let options = json!({"preconditions": {"resourceVersion": at.to_string()}});
                let options = options.as_object().cloned().unwrap_or_default();
                let request = Request::delete(place.resource, place.path(), &options);
                self.threads.wait(self.call(&request)).map(|_| ())
            }
        };
        self.reply(key, deleted, |()| Reply::Deleted)
    }

    fn apply(
        &self,
        key: &Key,
        place: &Place,
        writer: &Writer,
        part: &Part,
    ) -> Result<Result<Revision, Trouble>, StoreError> {
        let Key::Binding(name) = key else {
            return Err(self.invalid(&format!("only bindings have a status in parts: {key:?}")));
        };
        let fields = objects::status_part(name, writer, part).map_err(|bad| self.invalid(&bad))?;
        let manager = manager(writer);
        let url = format!(
            "{}/status?fieldManager={manager}&force=true&fieldValidation=Strict",
            place.path()
        );
        let request = Request::apply(place.resource, url, &fields);
        Ok(self
            .threads
            .wait(self.call(&request))
            .and_then(|object| written(&object)))
    }

    fn send(
        &self,
        place: &Place,
        form: Form,
        whole: impl Fn(ApiResource, String, &Extra) -> Request,
    ) -> Result<Revision, Trouble> {
        let what = place.resource;
        let request = match form {
            Form::Object(object) => whole(what, strict(place, place.path()), &object),
            Form::Patch(patch) => Request::patch(what, format!("{}/status", place.path()), &patch),
            Form::Foreign(owner) => return Err(Trouble::NotDone(Cause::invalid(owner))),
        };
        self.threads
            .wait(self.call(&request))
            .and_then(|object| written(&object))
    }

    fn reply<T>(
        &self,
        key: &Key,
        done: Result<T, Trouble>,
        success: impl FnOnce(T) -> Reply,
    ) -> Result<Reply, StoreError> {
        match done {
            Ok(done) => Ok(success(done)),
            // What is not there does not have the revision that was meant either.
            Err(Trouble::Conflict | Trouble::Missing) => Ok(Reply::Conflict),
            Err(Trouble::Lost(cause)) => {
                tracing::debug!(%key, reason = cause.reason, "the answer to a write was lost");
                Ok(Reply::Unknown)
            }
            Err(trouble) => Err(self.error(trouble)),
        }
    }
}

/// What a definition does not know is refused, and not dropped without a word.
fn strict(place: &Place, url: String) -> String {
    if place.resource.is_strict() {
        format!("{url}?fieldValidation=Strict")
    } else {
        url
    }
}

fn written(object: &Extra) -> Result<Revision, Trouble> {
    objects::revision(object).ok_or_else(|| Trouble::Lost(unavailable("an answer without a revision")))
}

/// The name under which a node's agent owns its part of a status, for a URL.
fn manager(Writer(node): &Writer) -> String {
    utf8_percent_encode(&field_manager(node), NON_ALPHANUMERIC).to_string()
}
