//! Notes as Kubernetes' events, which `kubectl describe pod` shows.

use buoy_api::meta::Extra;
use buoy_core::news::Note;
use serde_json::{Value as Json, json};

use super::place::{EVENTS, Place};

/// Who reports, as others name themselves.
const REPORTER: &str = "buoy.dev/agent";
/// What is done to the pod when something happens to its requests.
const ACTION: &str = "Network";
/// Longest text of an event, in bytes.
const LONGEST: usize = 1024;
/// Longest part of an event's name that is the pod's.
const LONGEST_NAME: usize = 200;

/// The event that a note is, when it is written first, and where.
pub fn event(note: &Note, node: &str) -> (Place, Extra) {
    let place = place(note);
    let about = &note.about;
    let object = json!({
        "apiVersion": EVENTS.api_version(),
        "kind": EVENTS.kind,
        "metadata": {"name": place.name, "namespace": about.namespace},
        "eventTime": micro(note.first),
        "reportingController": REPORTER,
        "reportingInstance": node,
        "action": ACTION,
        "reason": note.reason,
        "type": if note.warning { "Warning" } else { "Normal" },
        "note": cut(&note.message),
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
        },
    });
    (place, fields(object))
}

/// What counts the repetitions of a note in its event.
pub fn repetition(note: &Note) -> (Place, Extra) {
    let series = json!({"count": note.count, "lastObservedTime": micro(note.last)});
    (place(note), fields(json!({"series": series})))
}

fn place(note: &Note) -> Place {
    let name: String = note.about.name.chars().take(LONGEST_NAME).collect();
    Place {
        resource: EVENTS,
        namespace: Some(note.about.namespace.clone()),
        name: format!("{}.{:x}", name.trim_end_matches(['.', '-']), note.number),
    }
}

/// Microseconds, and always six digits of them.
fn micro(time: jiff::Timestamp) -> String {
    format!("{time:.6}")
}

/// The beginning of a text that is too long.
fn cut(text: &str) -> &str {
    let end = (0..=LONGEST.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

fn fields(object: Json) -> Extra {
    match object {
        Json::Object(fields) => fields,
        _ => Extra::new(),
    }
}

#[cfg(test)]
mod tests {
    use buoy_core::news::Workload;

    use super::*;

    #[test]
    fn an_event_is_named_after_its_pod_and_says_no_more_than_it_may() {
        let note = Note {
            about: Workload {
                namespace: "shop".to_owned(),
                name: "web.0".repeat(50),
                uid: "u".to_owned(),
                is_pod: true,
            },
            number: 255,
            reason: "FloatingIPRefused",
            warning: true,
            message: "ü".repeat(1000),
            first: jiff::Timestamp::UNIX_EPOCH,
            last: jiff::Timestamp::UNIX_EPOCH,
            count: 3,
        };
        let (place, event) = event(&note, "n1");
        assert_eq!(place.name, format!("{}.ff", "web.0".repeat(40)));
        assert_eq!(event["note"], "ü".repeat(512));
        assert_eq!(event["eventTime"], "1970-01-01T00:00:00.000000Z");
        let (again, series) = repetition(&note);
        assert_eq!(
            (again, &series["series"]["count"]),
            (place, &json!(3)),
            "the same event"
        );
    }
}
