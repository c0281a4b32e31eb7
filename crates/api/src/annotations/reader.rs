//! Looks annotations up.

use std::collections::BTreeMap;

use super::{AnnotationError, AnnotationErrors, MAX_VALUE, Problem};

/// Looks annotations up and gathers what is wrong with them.
pub(super) struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    errors: Vec<AnnotationError>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(annotations: &'a BTreeMap<String, String>) -> Self {
        Self {
            annotations,
            errors: Vec::new(),
        }
    }

    /// What was read, if nothing was wrong with it.
    pub(super) fn finish<T>(self, read: T) -> Result<T, AnnotationErrors> {
        match self.errors.is_empty() {
            true => Ok(read),
            false => Err(AnnotationErrors(self.errors)),
        }
    }

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
