//! Recursive descent over the text of a selector; `||` binds weaker than `&&`, and `!` strongest.

use std::collections::BTreeSet;

use super::{MAX_DEPTH, Selector, SelectorError};

pub(super) fn selector(text: &str) -> Result<Selector, SelectorError> {
    let mut parser = Parser { text, rest: text };
    parser.skip_space();
    if parser.rest.is_empty() {
        return Ok(Selector::All);
    }
    let selector = parser.alternatives(0)?;
    if parser.rest.is_empty() {
        Ok(selector)
    } else {
        Err(parser.error("expected && or || or the end"))
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn alternatives(&mut self, depth: usize) -> Result<Selector, SelectorError> {
        let mut parts = vec![self.conjunction(depth)?];
        while self.eat("||") {
            parts.push(self.conjunction(depth)?);
        }
        Ok(single_or(parts, Selector::Or))
    }

    fn conjunction(&mut self, depth: usize) -> Result<Selector, SelectorError> {
        let mut parts = vec![self.term(depth)?];
        while self.eat("&&") {
            parts.push(self.term(depth)?);
        }
        Ok(single_or(parts, Selector::And))
    }

    fn term(&mut self, depth: usize) -> Result<Selector, SelectorError> {
        if depth >= MAX_DEPTH {
            return Err(self.error(&format!("nested deeper than {MAX_DEPTH}")));
        }
        if self.eat("!") {
            return Ok(Selector::Not(Box::new(self.term(depth + 1)?)));
        }
        if self.eat("(") {
            let inner = self.alternatives(depth + 1)?;
            self.expect(")")?;
            return Ok(inner);
        }
        let start = self.rest;
        let Some(word) = self.label() else {
            return Err(self.error("expected a label, has(), all(), ! or ("));
        };
        match word {
            "all" | "global" | "has" if self.eat("(") => self.call(word),
            label => self.comparison(label, start),
        }
    }

    fn call(&mut self, function: &str) -> Result<Selector, SelectorError> {
        let selector = match function {
            "all" => Selector::All,
            "global" => Selector::Global,
            _ => match self.label() {
                Some(label) => Selector::Has(label.to_owned()),
                None => return Err(self.error("expected a label")),
            },
        };
        self.expect(")")?;
        Ok(selector)
    }

    fn comparison(&mut self, label: &str, start: &'a str) -> Result<Selector, SelectorError> {
        let label = label.to_owned();
        if self.eat("==") {
            return Ok(Selector::Equal(label, self.string()?));
        }
        if self.eat("!=") {
            return Ok(Selector::NotEqual(label, self.string()?));
        }
        match self.label() {
            Some("in") => Ok(Selector::In(label, self.set()?)),
            Some("not") if self.word("in") => Ok(Selector::NotIn(label, self.set()?)),
            Some("contains") => Ok(Selector::Contains(label, self.string()?)),
            Some("starts") if self.word("with") => Ok(Selector::StartsWith(label, self.string()?)),
            Some("ends") if self.word("with") => Ok(Selector::EndsWith(label, self.string()?)),
            _ => {
                self.rest = start;
                Err(self.error(&format!(
                    "expected ==, !=, in, not in, contains, starts with or ends with after {label}"
                )))
            }
        }
    }

    fn set(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        self.expect("{")?;
        let mut values = BTreeSet::new();
        if self.eat("}") {
            return Ok(values);
        }
        loop {
            values.insert(self.string()?);
            if self.eat("}") {
                return Ok(values);
            }
            if !self.eat(",") {
                return Err(self.error("expected , or }"));
            }
        }
    }

    fn string(&mut self) -> Result<String, SelectorError> {
        let Some(quote) = self
            .rest
            .chars()
            .next()
            .filter(|first| matches!(first, '"' | '\''))
        else {
            return Err(self.error("expected a text in quotes"));
        };
        let Some((value, rest)) = self.rest[1..].split_once(quote) else {
            return Err(self.error("quote is not closed"));
        };
        self.rest = rest;
        self.skip_space();
        Ok(value.to_owned())
    }

    fn label(&mut self) -> Option<&'a str> {
        let part_of_label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
        let end = self.rest.find(|c| !part_of_label(c)).unwrap_or(self.rest.len());
        let (label, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.skip_space();
        (!label.is_empty()).then_some(label)
    }

    fn word(&mut self, wanted: &str) -> bool {
        self.label() == Some(wanted)
    }

    fn eat(&mut self, token: &str) -> bool {
        // `!` must not swallow the first half of `!=`, which never begins a term.
        match self.rest.strip_prefix(token) {
            Some(rest) if token != "!" || !rest.starts_with('=') => {
                self.rest = rest;
                self.skip_space();
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), SelectorError> {
        if self.eat(token) {
            Ok(())
        } else {
            Err(self.error(&format!("expected {token}")))
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn error(&self, reason: &str) -> SelectorError {
        let parsed = &self.text[..self.text.len() - self.rest.len()];
        SelectorError {
            position: parsed.chars().count() + 1,
            reason: reason.to_owned(),
            text: self.text.to_owned(),
        }
    }
}

fn single_or(mut parts: Vec<Selector>, many: fn(Vec<Selector>) -> Selector) -> Selector {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => Selector::All,
    }
}
