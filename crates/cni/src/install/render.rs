//! From the ConfigMap's template to the file that a runtime reads: `__PLACEHOLDERS__`, and what a runtime would refuse.
//!
//! Names, variables and defaults are those of Calico's `install-cni`, so that its ConfigMaps work as they are. Values go in
//! as they come: `__CNI_MTU__` is a number because it stands without quotes.

use serde_json::Value;

use super::error::{Error, Result};

/// What is in every file of ours and in no other: the network configuration says it as a key, which runtimes pass over.
pub(crate) const MARK: &str = "buoy.dev/installedBy";

/// Replaces each placeholder by its value. `value` is asked for a name between the underscores, and knows not all.
pub(crate) fn substitute(
    template: &str,
    value: &mut impl FnMut(&str) -> Result<Option<String>>,
) -> Result<String> {
    let (mut text, mut rest) = (String::new(), template);
    while let Some((begin, name)) = next_placeholder(rest) {
        let end = begin + name.len() + 4;
        text.push_str(&rest[..begin]);
        match value(name)? {
            Some(value) => text.push_str(&value),
            None => text.push_str(&rest[begin..end]),
        }
        rest = &rest[end..];
    }
    text.push_str(rest);
    Ok(text)
}

/// The placeholders that nobody gave a value.
pub(crate) fn left_over(text: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some((begin, name)) = next_placeholder(rest) {
        found.push(name);
        rest = &rest[begin + name.len() + 4..];
    }
    found
}

/// Where the first placeholder begins, and its name: capitals, with single underscores between them.
fn next_placeholder(text: &str) -> Option<(usize, &str)> {
    let mut from = 0;
    while let Some(found) = text[from..].find("__") {
        let begin = from + found;
        let inner = &text[begin + 2..];
        let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
        if let Some(end) = inner.find("__")
            && inner[..end]
                .split('_')
                .all(|part| !part.is_empty() && part.chars().all(is_part))
        {
            return Some((begin, &inner[..end]));
        }
        from = begin + 1;
    }
    None
}

/// Checks that a runtime will take the text for what its file's name promises, and adds our mark.
///
/// `template` is shown where the text is wrong: the text itself may hold a token.
pub(crate) fn finish(text: &str, template: &str, file_name: &str) -> Result<String> {
    let parsed: Value = serde_json::from_str(text).map_err(|error| {
        let line = template
            .lines()
            .nth(error.line().saturating_sub(1))
            .unwrap_or_default();
        Error::Config {
            problem: format!("not JSON once its placeholders are replaced: {error}"),
            hint: format!(
                "look at this line, and at the values of its placeholders: {}",
                line.trim()
            ),
        }
    })?;
    check(&parsed, file_name)?;
    if parsed.get(MARK).is_some() {
        return Ok(text.to_owned());
    }
    Ok(text.replacen('{', &format!("{{\n  \"{MARK}\": \"buoy-cni\","), 1))
}

fn check(parsed: &Value, file_name: &str) -> Result<()> {
    let complain = |problem: &str, hint: &str| {
        Err(Error::Config {
            problem: problem.to_owned(),
            hint: hint.to_owned(),
        })
    };
    let has_text = |value: &Value, key: &str| value[key].as_str().is_some_and(|text| !text.is_empty());
    if !has_text(parsed, "name") {
        return complain(
            "it has no name",
            "write \"name\": \"k8s-pod-network\" beside \"plugins\"",
        );
    }
    if !file_name.ends_with(".conflist") {
        return match has_text(parsed, "type") {
            true => Ok(()),
            false => complain(
                "it names no plugin",
                "write \"type\": \"calico\", or a list of plugins and a CNI_CONF_NAME that ends in .conflist",
            ),
        };
    }
    let plugins = parsed["plugins"].as_array();
    if plugins.is_some_and(|list| !list.is_empty() && list.iter().all(|plugin| has_text(plugin, "type"))) {
        return Ok(());
    }
    complain(
        "it has no list of plugins, each with its type",
        "write \"plugins\": [{\"type\": \"calico\", …}], or a CNI_CONF_NAME that ends in .conf for a single plugin",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(template: &str, values: &[(&str, &str)]) -> String {
        let mut value = |name: &str| {
            let found = values.iter().find(|(key, _)| *key == name);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        };
        substitute(template, &mut value).unwrap()
    }

    #[test]
    fn known_placeholders_are_replaced_once_and_others_stay() {
        let values = [
            ("CNI_MTU", "1440"),
            ("LOG_LEVEL", "__CNI_MTU__"),
            ("HOST", "a"),
            ("PORT", "1"),
        ];
        assert_eq!(with("{\"mtu\": __CNI_MTU__}", &values), "{\"mtu\": 1440}");
        assert_eq!(with("__LOG_LEVEL__", &values), "__CNI_MTU__");
        assert_eq!(with("__HOST__:__PORT__", &values), "a:1");
        assert_eq!(with("___HOST__ __HOST___", &values), "_a a_");
        for same in [
            "",
            "__",
            "____",
            "__host__",
            "__OTHER__",
            "_HOST_",
            "a__b",
            "ä__HOST",
        ] {
            assert_eq!(with(same, &values), same);
        }
        assert_eq!(left_over("__A__ __b__ __C_D__"), ["A", "C_D"]);
    }

    #[test]
    fn a_finished_text_is_the_operator_s_with_a_mark() {
        let text = "{\n  \"name\": \"n\",\n  \"plugins\": [{\"type\": \"calico\"}]\n}\n";
        let finished = finish(text, text, "10-calico.conflist").unwrap();
        assert_eq!(
            finished,
            text.replacen('{', "{\n  \"buoy.dev/installedBy\": \"buoy-cni\",", 1)
        );
        let mut parsed: Value = serde_json::from_str(&finished).unwrap();
        parsed.as_object_mut().unwrap().remove(MARK).unwrap();
        assert_eq!(parsed, serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(
            finish(&finished, &finished, "10-calico.conflist").unwrap(),
            finished
        );
    }

    #[test]
    fn what_a_runtime_would_refuse_is_refused_with_a_hint() {
        let refused = |text: &str, name: &str| finish(text, text, name).unwrap_err().to_string();
        let message = refused("{\n  \"name\": \"n\",\n  \"mtu\": ,\n}", "a.conflist");
        assert!(
            message.contains("line 3") && message.ends_with(": \"mtu\": ,"),
            "{message}"
        );
        for (text, name, part) in [
            ("{\"plugins\": [{\"type\": \"calico\"}]}", "a.conflist", "no name"),
            (
                "{\"name\": \"n\", \"type\": \"calico\"}",
                "a.conflist",
                "CNI_CONF_NAME",
            ),
            (
                "{\"name\": \"n\", \"plugins\": []}",
                "a.conflist",
                "no list of plugins",
            ),
            (
                "{\"name\": \"n\", \"plugins\": [{\"type\": \"\"}]}",
                "a.conflist",
                "no list of plugins",
            ),
            (
                "{\"name\": \"n\", \"plugins\": [{\"type\": \"a\"}]}",
                "a.conf",
                "names no plugin",
            ),
            ("[]", "a.conflist", "no name"),
        ] {
            let message = refused(text, name);
            assert!(message.contains(part), "{message}");
        }
        assert!(finish("{\"name\": \"n\", \"type\": \"calico\"}", "", "a.conf").is_ok());
    }
}
