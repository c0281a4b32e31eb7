//! Tells the people of workloads what happens to their requests: in the log, and where the datastore has a place for it.

use std::collections::BTreeSet;

use buoy_cni_spec::CniError;
use buoy_core::endpoint::{AttachmentId, EndpointId};
use buoy_core::news::{Herald, Left, News, What, Workload};
use buoy_core::subject::Subject;
use buoy_core::time::Now;
use tracing::{info, warn};

use super::Agent;

impl Agent {
    /// Tells what is new about these subjects.
    pub(super) fn tell_of(&mut self, dirty: &BTreeSet<Subject>, now: Now) {
        let mut herald = self.herald.take().unwrap_or_else(|| self.told_before());
        for news in self.news(&mut herald, dirty) {
            if let Some(change) = news.what.change() {
                self.metrics.floating.changed(change);
            }
            self.tell(&news, now);
        }
        self.herald = Some(herald);
    }

    /// What is new about endpoints as a whole, and then about single addresses that others ask for.
    fn news(&self, herald: &mut Herald, dirty: &BTreeSet<Subject>) -> Vec<News> {
        let view = &self.view;
        let mut news = Vec::new();
        for subject in dirty {
            if let Subject::Endpoint(endpoint) = subject {
                news.extend(herald.news(view, endpoint));
            }
        }
        for subject in dirty {
            let Subject::Binding(floating) = subject else {
                continue;
            };
            for endpoint in view.asking(*floating) {
                news.extend(herald.news_of(view, endpoint, *floating));
            }
        }
        news
    }

    /// What an agent before this one told already.
    fn told_before(&self) -> Herald {
        let mut herald = Herald::default();
        let running = self.view.attachments().filter(|a| !a.is_adding());
        let running: BTreeSet<&EndpointId> = running.map(|a| &a.endpoint).collect();
        for endpoint in running {
            herald.news(&self.view, endpoint);
        }
        herald
    }

    /// An ADD cannot be granted now.
    pub(super) fn tell_of_failure(&mut self, id: &AttachmentId, error: &CniError, now: Now) {
        if let Some(attachment) = self.view.attachment(id) {
            self.tell_not_attached(Workload::of(attachment), error, now);
        }
    }

    pub(super) fn tell_not_attached(&mut self, about: Workload, error: &CniError, now: Now) {
        let what = What::NotAttached(error.to_string());
        self.tell(&News { about, what }, now);
    }

    fn tell(&mut self, news: &News, now: Now) {
        let note = match self.limits.admit(news, now) {
            Ok(note) => note,
            Err(Left::Counted) => return self.metrics.floating.told("counted"),
            Err(Left::Dropped) => return self.metrics.floating.told("dropped"),
        };
        let about = format!("{}/{}", note.about.namespace, note.about.name);
        if note.warning {
            warn!("{about}: {}", note.message);
        } else {
            info!("{about}: {}", note.message);
        }
        self.notes.offer(note);
    }
}
