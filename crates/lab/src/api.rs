//! HTTP over a socket: what an agent says of itself, and the API server as the administrator sees it. A question takes a
//! millisecond, where starting `kubectl` for it takes a hundred.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// An answer is there within this time, or not at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// A way to an API server, or to the pages of an agent.
#[derive(Clone, Debug)]
pub struct Api {
    socket: PathBuf,
}

impl Api {
    pub(crate) fn behind(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// An object, or a list of them, by its path: `/api/v1/nodes`. Error: there is none, or no answer.
    pub fn get(&self, path: &str) -> Result<Value> {
        let text = self.text(path)?;
        serde_json::from_str(&text).with_context(|| format!("no JSON at {path}: {text}"))
    }

    /// The items of a list.
    pub fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut list = self.get(path)?;
        Ok(match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        })
    }

    /// What is at a path, as it is.
    pub fn text(&self, path: &str) -> Result<String> {
        self.ask("GET", path, "", "")
    }

    /// Makes an object.
    pub fn create(&self, path: &str, object: &Value) -> Result<()> {
        self.ask("POST", path, "application/json", &object.to_string())
            .map(drop)
    }

    /// Deletes an object, and does not wait until it is gone.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.ask("DELETE", path, "", "").map(drop)
    }

    /// HTTP 1.0: the answer is all that comes until the end.
    fn ask(&self, verb: &str, path: &str, kind: &str, body: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("nobody answers at {}", self.socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        write!(
            stream,
            "{verb} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .with_context(|| format!("no answer: {verb} {path}"))?;
        read(&String::from_utf8_lossy(&answer)).with_context(|| format!("{verb} {path}"))
    }
}

/// The body of an answer. Error: it is not one of success.
fn read(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is torn")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status.starts_with('2'), "status {status}: {}", body.trim());
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_body_or_an_error() {
        assert_eq!(read("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}").unwrap(), "{}");
        let error = read("HTTP/1.0 404 Not Found\r\n\r\nno pod\n")
            .unwrap_err()
            .to_string();
        assert_eq!(error, "status 404: no pod");
        assert!(read("HTTP/1.0 200").is_err());
    }
}
