//! What the demo writes on the terminal: headings, sentences, commands with their output, and what was checked.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Result;

/// Column at which figures end.
const WIDTH: usize = 96;

/// A teller of one story.
#[derive(Debug)]
pub(super) struct Story {
    colour: bool,
    begun: Instant,
    checks: usize,
}

/// How a piece of text looks where there is colour.
#[derive(Clone, Copy)]
enum Look {
    Bold,
    Dim,
    Green,
    Red,
}

impl Story {
    pub(super) fn begin() -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            colour,
            begun: Instant::now(),
            checks: 0,
        }
    }

    /// How many things were checked.
    pub(super) fn checks(&self) -> usize {
        self.checks
    }

    /// How long it has been.
    pub(super) fn took(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A heading.
    pub(super) fn step(&self, number: u8, title: &str) -> Result<()> {
        let heading = self.look(Look::Bold, &format!("{number}  {title}"));
        self.line(&format!("\n{heading}"))
    }

    /// A sentence.
    pub(super) fn say(&self, text: &str) -> Result<()> {
        self.line(&format!("   {text}"))
    }

    /// A command as a person would type it, and what it printed.
    pub(super) fn command(&self, command: &str, output: &str) -> Result<()> {
        self.line(&format!("   {}", self.look(Look::Bold, &format!("$ {command}"))))?;
        for line in output.lines() {
            self.line(&format!("     {}", self.look(Look::Dim, line)))?;
        }
        Ok(())
    }

    /// Something that was checked and holds.
    pub(super) fn check(&mut self, text: &str) -> Result<()> {
        self.checked(text, "")
    }

    /// Something that was checked and holds, and how long it took.
    pub(super) fn timed(&mut self, text: &str, took: Duration) -> Result<()> {
        self.checked(text, &figure(took))
    }

    /// Something that was checked and holds, with a figure.
    pub(super) fn checked(&mut self, text: &str, figure: &str) -> Result<()> {
        self.checks += 1;
        let gap = WIDTH
            .saturating_sub(text.chars().count() + figure.chars().count())
            .max(1);
        self.line(&format!(
            "   {} {text}{}{}",
            self.look(Look::Green, "✓"),
            " ".repeat(if figure.is_empty() { 0 } else { gap }),
            self.look(Look::Bold, figure)
        ))
    }

    /// Something that was checked and does not hold, with the evidence.
    pub(super) fn failed(&self, error: &anyhow::Error, evidence: &str) -> Result<()> {
        self.line(&format!("   {} {error:#}\n", self.look(Look::Red, "✗")))?;
        self.line(evidence)
    }

    /// A line as it is.
    pub(super) fn line(&self, text: &str) -> Result<()> {
        Ok(writeln!(io::stdout(), "{text}")?)
    }

    fn look(&self, look: Look, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match look {
            Look::Bold => "1",
            Look::Dim => "2",
            Look::Green => "32",
            Look::Red => "31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// A time as people read it.
pub(super) fn figure(took: Duration) -> String {
    let milliseconds = took.as_secs_f64() * 1000.0;
    if milliseconds < 10.0 {
        format!("{milliseconds:.1} ms")
    } else if milliseconds < 1000.0 {
        format!("{milliseconds:.0} ms")
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let cases = [(1_234, "1.2 ms"), (45_600, "46 ms"), (12_345_000, "12.3 s")];
        for (micros, text) in cases {
            assert_eq!(figure(Duration::from_micros(micros)), text);
        }
    }
}
