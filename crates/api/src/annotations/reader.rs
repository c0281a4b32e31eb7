//! Looks annotations up.

use std::collections::BTreeMap;

use super::{AnnotationError, MAX_VALUE, Problem};

/// Looks annotations up and gathers what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) annotations: &'a BTreeMap<String, String>,
    pub(super) errors: Vec<AnnotationError>,
}

impl Reader<'_> {
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Option<T> {
        let text = self.annotations.get(name).filter(|text| !text.is_empty())?;
        let parsed = if text.len() > MAX_VALUE {
            Err(Problem::TooLong(text.len()))
        } else {
            parse(text)
        };
        parsed.map_err(|problem| self.fail(name, problem)).ok()
    }

    pub(super) fn fail(&mut self, name: &'static str, problem: Problem) {
        self.errors.push(AnnotationError::new(name, problem));
    }
}
