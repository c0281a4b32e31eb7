//! Verbs for resources: create, apply, get, delete.

mod binding;
mod delete;
mod get;
mod tables;
mod write;

use serde::Serialize;

use crate::failure::Failure;
use crate::manifest::Target;
use crate::output::{Format, Output};

pub(crate) use delete::{documents as delete_documents, names as delete_names};
pub(crate) use get::{Query, get};
pub(crate) use write::{Mode, write};

/// What a verb did.
#[derive(Debug, Serialize)]
struct Done {
    verb: &'static str,
    resources: Vec<DoneTo>,
}

/// What a verb did it to.
#[derive(Debug, Serialize)]
struct DoneTo {
    kind: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    name: String,
}

/// Says what was done, in calicoctl's words.
fn report(verb: &'static str, targets: &[Target], format: Format) -> Result<Output, Failure> {
    let done = Done {
        verb,
        resources: targets
            .iter()
            .map(|target| DoneTo {
                kind: target.kind.kind(),
                namespace: target.namespace.clone(),
                name: target.name.clone(),
            })
            .collect(),
    };
    Output::render(format, &done, || {
        let count = targets.len();
        let one_kind = targets
            .split_first()
            .filter(|(first, rest)| rest.iter().all(|target| target.kind == first.kind));
        match one_kind {
            Some((first, _)) => format!("Successfully {verb} {count} '{}' resource(s)", first.kind.kind()),
            None => format!("Successfully {verb} {count} resource(s)"),
        }
    })
}

/// How far a verb came before it failed.
fn partial(done: usize, of: usize, verb: &str, failure: Failure) -> Failure {
    if done == 0 {
        return failure;
    }
    Failure::new(format!("{failure}\n{verb} before this: {done} of {of}"))
}
