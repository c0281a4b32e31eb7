//! What a command has to say: data for stdout, in the form asked for, and warnings for stderr.

use serde::Serialize;
use serde_json::Value as Json;

use crate::failure::Failure;

/// The form of data on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Ps,
    /// For people, with more columns.
    Wide,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

/// What a command has to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// For stdout.
    pub data: String,
    /// For stderr, one message each.
    pub warnings: Vec<String>,
}

impl Output {
    /// Data, as text for people or as a document, whichever the format asks for.
    pub(crate) fn render(
        format: Format,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<Self, Failure> {
        let mut data = match format {
            Format::Ps | Format::Wide => text(),
            Format::Json => serde_json::to_string_pretty(document)
                .map_err(|error| Failure::new(format!("cannot be written as JSON: {error}")))?,
            Format::Yaml => yaml(document)?,
        };
        if !data.is_empty() && !data.ends_with('\n') {
            data.push('\n');
        }
        Ok(Self {
            data,
            warnings: Vec::new(),
        })
    }

    /// The same, with warnings.
    pub(crate) fn warning(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        self.warnings.extend(warnings);
        self
    }
}

/// By way of JSON, so that both forms hold the same.
fn yaml(document: &impl Serialize) -> Result<String, Failure> {
    let cannot = |error: &dyn std::fmt::Display| Failure::new(format!("cannot be written as YAML: {error}"));
    let json: Json = serde_json::to_value(document).map_err(|error| cannot(&error))?;
    serde_saphyr::to_string(&json).map_err(|error| cannot(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_for_people_and_documents_for_programs() {
        let document = serde_json::json!({"name": "p", "on": "yes", "n": 1});
        let of = |format| Output::render(format, &document, || "p".to_owned()).unwrap().data;
        assert_eq!(of(Format::Ps), "p\n");
        assert_eq!(
            of(Format::Json),
            "{\n  \"n\": 1,\n  \"name\": \"p\",\n  \"on\": \"yes\"\n}\n"
        );
        assert_eq!(of(Format::Yaml), "\"n\": 1\nname: p\n\"on\": \"yes\"\n");
    }
}
