//! Questions to the agent of this node, over its socket.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use buoy_cni_spec::CniError;
use buoy_cni_spec::agent::{Body, Inspect, Request, decode_response};
use buoy_cni_spec::frame::{self, Decoder};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::failure::Failure;

/// How long the agent may take to answer. A busy one answers between two rounds of its loop.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the agent listens.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    socket: PathBuf,
}

/// Why the agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentFailure {
    /// Nobody listens.
    #[error(
        "agent is not running: {socket}: {source}\nstart buoy-agent, or name its socket with --socket or BUOY_SOCKET"
    )]
    Absent {
        /// The socket.
        socket: PathBuf,
        /// What connecting said.
        source: io::Error,
    },
    /// The connection failed.
    #[error("agent does not answer: {socket}: {source}\n{hint}")]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What reading or writing said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// It answered with an error.
    #[error("{}", with_hint(.0))]
    Refused(CniError),
}

impl AgentFailure {
    /// Whether there is no agent, so that somebody else may be asked.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }
}

impl From<AgentFailure> for Failure {
    fn from(failure: AgentFailure) -> Self {
        Self::new(failure.to_string())
    }
}

fn with_hint(error: &CniError) -> String {
    if error.details.is_empty() {
        error.msg.clone()
    } else {
        format!("{}\n{}", error.msg, error.details)
    }
}

impl Agent {
    /// The agent that listens on a socket.
    pub(crate) fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Asks one question.
    pub(crate) fn inspect(&self, question: Inspect) -> Result<Json, AgentFailure> {
        let stream = UnixStream::connect(&self.socket).map_err(|source| self.unreachable(source))?;
        let client = concat!("buoyctl ", env!("CARGO_PKG_VERSION"));
        let request = Request::new(client, Body::Inspect(question));
        let body = exchange(&stream, &request).map_err(|source| self.broken(source))?;
        match decode_response(&body) {
            Ok(Ok(document)) => Ok(document),
            Ok(Err(refused)) | Err(refused) => Err(AgentFailure::Refused(refused)),
        }
    }

    fn unreachable(&self, source: io::Error) -> AgentFailure {
        let socket = self.socket.clone();
        match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => AgentFailure::Absent { socket, source },
            _ => self.broken(source),
        }
    }

    fn broken(&self, source: io::Error) -> AgentFailure {
        let hint = match source.kind() {
            ErrorKind::PermissionDenied => "run buoyctl as root",
            ErrorKind::WouldBlock | ErrorKind::TimedOut => "look into its log, or ask again",
            _ => "is it buoy-agent that listens there?",
        };
        AgentFailure::Broken {
            socket: self.socket.clone(),
            source,
            hint,
        }
    }
}

/// Sends a request and reads the body of the answer.
fn exchange(mut stream: &UnixStream, request: &Request) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&frame::encode(request).map_err(io::Error::other)?)?;
    let mut decoder = Decoder::default();
    let mut bytes = [0; 16 * 1024];
    loop {
        if let Some(body) = decoder.next_body().map_err(io::Error::other)? {
            return Ok(body);
        }
        match stream.read(&mut bytes)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => decoder.push(&bytes[..read]),
        }
    }
}

/// The agent's document as a type.
pub(crate) fn read<T: DeserializeOwned>(document: Json) -> Result<T, Failure> {
    serde_json::from_value(document).map_err(|error| {
        Failure::new(format!(
            "the agent's answer does not decode: {error}\nuse the buoyctl that came with the agent"
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use buoy_cni_spec::ErrorCode;
    use buoy_cni_spec::agent::Response;
    use serde_json::json;

    use super::*;

    /// Answers one connection with these bytes and returns what was asked.
    fn asked(answer: Vec<u8>) -> (Result<Json, AgentFailure>, Json) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let agent = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut header = [0; frame::HEADER];
            stream.read_exact(&mut header).unwrap();
            let mut body = vec![0; frame::body_len(header).unwrap()];
            stream.read_exact(&mut body).unwrap();
            stream.write_all(&answer).unwrap();
            serde_json::from_slice(&body).unwrap()
        });
        let answer = Agent::at(&socket).inspect(Inspect::Plan);
        (answer, agent.join().unwrap())
    }

    #[test]
    fn a_question_has_an_answer() {
        let response: Response = Ok(json!({"operations": []}));
        let (answer, request) = asked(frame::encode(&response).unwrap());
        assert_eq!(answer.unwrap(), json!({"operations": []}));
        assert_eq!(request["body"], json!({"inspect": "plan"}));
        assert_eq!(request["client"], concat!("buoyctl ", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn refusals_and_breaks_are_told_apart() {
        let refusal: Response = Err(CniError::new(ErrorCode::GENERIC, "not synced").with_hint("wait"));
        let (answer, _) = asked(frame::encode(&refusal).unwrap());
        assert_eq!(answer.unwrap_err().to_string(), "not synced\nwait");
        let (answer, _) = asked(vec![0, 0]);
        let failure = answer.unwrap_err();
        assert!(!failure.is_absent());
        assert!(failure.to_string().contains("is it buoy-agent"), "{failure}");
        let failure = Agent::at(Path::new("/nonexistent/agent.sock"))
            .inspect(Inspect::Plan)
            .unwrap_err();
        assert!(failure.is_absent());
    }
}
