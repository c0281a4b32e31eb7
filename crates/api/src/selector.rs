//! Calico's selectors: expressions over labels, such as `zone == "a" && !has(edge)`.
//!
//! Parsed once, evaluated often. An expression nests at most [`MAX_DEPTH`] deep, so no text can exhaust the stack.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::str::FromStr;

mod parse;
#[cfg(test)]
mod tests;

/// How deep parentheses and `!` may nest.
pub const MAX_DEPTH: usize = 64;

/// Labels, as a selector sees them.
pub type Labels = BTreeMap<String, String>;

/// An expression over labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// `all()`, and the empty text.
    All,
    /// `global()`: true wherever it is asked.
    Global,
    /// `has(label)`.
    Has(String),
    /// `label == "value"`.
    Equal(String, String),
    /// `label != "value"`: true also without the label.
    NotEqual(String, String),
    /// `label in {"a", "b"}`.
    In(String, BTreeSet<String>),
    /// `label not in {"a", "b"}`: true also without the label.
    NotIn(String, BTreeSet<String>),
    /// `label contains "text"`.
    Contains(String, String),
    /// `label starts with "text"`.
    StartsWith(String, String),
    /// `label ends with "text"`.
    EndsWith(String, String),
    /// `!expression`.
    Not(Box<Selector>),
    /// Every one, joined by `&&`.
    And(Vec<Selector>),
    /// At least one, joined by `||`.
    Or(Vec<Selector>),
}

/// Where and why a text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("selector does not parse at character {position}: {reason}\nthe selector is: {text}")]
pub struct SelectorError {
    /// Character at which parsing stopped, counted from 1.
    pub position: usize,
    /// What was expected.
    pub reason: String,
    /// The whole text.
    pub text: String,
}

impl Selector {
    /// Whether labels satisfy it.
    pub fn matches(&self, labels: &Labels) -> bool {
        let holds =
            |label: &str, test: &dyn Fn(&str) -> bool| labels.get(label).is_some_and(|value| test(value));
        match self {
            Self::All | Self::Global => true,
            Self::Has(label) => labels.contains_key(label),
            Self::Equal(label, text) => holds(label, &|value| value == text),
            Self::NotEqual(label, text) => !holds(label, &|value| value == text),
            Self::In(label, set) => holds(label, &|value| set.contains(value)),
            Self::NotIn(label, set) => !holds(label, &|value| set.contains(value)),
            Self::Contains(label, text) => holds(label, &|value| value.contains(text)),
            Self::StartsWith(label, text) => holds(label, &|value| value.starts_with(text)),
            Self::EndsWith(label, text) => holds(label, &|value| value.ends_with(text)),
            Self::Not(inner) => !inner.matches(labels),
            Self::And(parts) => parts.iter().all(|part| part.matches(labels)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        parse::selector(text)
    }
}

impl Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(label) => write!(f, "has({label})"),
            Self::Equal(label, text) => write!(f, "{label} == {}", Quoted(text)),
            Self::NotEqual(label, text) => write!(f, "{label} != {}", Quoted(text)),
            Self::In(label, set) => write!(f, "{label} in {}", Braced(set)),
            Self::NotIn(label, set) => write!(f, "{label} not in {}", Braced(set)),
            Self::Contains(label, text) => write!(f, "{label} contains {}", Quoted(text)),
            Self::StartsWith(label, text) => write!(f, "{label} starts with {}", Quoted(text)),
            Self::EndsWith(label, text) => write!(f, "{label} ends with {}", Quoted(text)),
            Self::Not(inner) => write!(f, "!{}", Operand(inner)),
            Self::And(parts) => joined(f, parts, " && "),
            Self::Or(parts) => joined(f, parts, " || "),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Selector], operator: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(operator)?;
        }
        Operand(part).fmt(f)?;
    }
    Ok(())
}

struct Operand<'a>(&'a Selector);

impl Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Selector::And(_) | Selector::Or(_) => write!(f, "({})", self.0),
            simple => simple.fmt(f),
        }
    }
}

/// A value in the quotes that it does not contain; the language has no escapes.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Braced<'a>(&'a BTreeSet<String>);

impl Display for Braced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, value) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            Quoted(value).fmt(f)?;
        }
        f.write_str("}")
    }
}
