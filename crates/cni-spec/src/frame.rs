//! Frames on the agent's stream socket: a length of four bytes, big-endian, then so many bytes of JSON.
//!
//! Bytes in, bytes out; whoever owns a socket does the I/O. A network namespace's descriptor travels beside the first
//! bytes of a frame as ancillary data (`SCM_RIGHTS`), so the length may come alone.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest body of a frame, in bytes.
pub const MAX_BODY: usize = 1 << 20;

/// Bytes of the length before the body.
pub const HEADER: usize = 4;

/// A frame that cannot be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The body is longer than [`MAX_BODY`].
    #[error("message is too large: {len} bytes, at most {MAX_BODY}")]
    TooLarge {
        /// Bytes that the body has, or claims to have.
        len: usize,
    },
    /// The body is not the message that was expected.
    #[error("message does not decode")]
    Json(#[from] serde_json::Error),
}

impl FrameError {
    /// Whether the body was longer than allowed.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. })
    }
}

/// A message as a whole frame.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let len = frame.len() - HEADER;
    let header = u32::try_from(len)
        .ok()
        .filter(|_| len <= MAX_BODY)
        .ok_or(FrameError::TooLarge { len })?;
    frame[..HEADER].copy_from_slice(&header.to_be_bytes());
    Ok(frame)
}

/// The length of the body that follows this header, checked against [`MAX_BODY`].
pub fn body_len(header: [u8; HEADER]) -> Result<usize, FrameError> {
    let len = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if len > MAX_BODY {
        Err(FrameError::TooLarge { len })
    } else {
        Ok(len)
    }
}

/// A body as a message.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(body)?)
}

/// Collects bytes as they arrive and hands out whole bodies.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Takes bytes that were read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole body, or `None` while more bytes are needed. After an error the stream is lost.
    pub fn next_body(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some(header) = self.pending.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let end = HEADER + body_len(*header)?;
        if self.pending.len() < end {
            return Ok(None);
        }
        let rest = self.pending.split_off(end);
        let frame = std::mem::replace(&mut self.pending, rest);
        Ok(Some(frame[HEADER..].to_vec()))
    }

    /// Whether bytes of an unfinished frame are waiting: an end of the stream now is a break, not a close.
    pub fn is_mid_frame(&self) -> bool {
        !self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bound_holds_in_both_directions() {
        assert!(encode(&"x".repeat(MAX_BODY)).unwrap_err().is_too_large());
        assert_eq!(
            encode(&"x".repeat(MAX_BODY - 2)).unwrap().len(),
            HEADER + MAX_BODY
        );
        assert!(body_len([0, 16, 0, 1]).unwrap_err().is_too_large());
        assert_eq!(body_len([0, 16, 0, 0]).unwrap(), MAX_BODY);
        let mut decoder = Decoder::default();
        decoder.push(&[0xff; 4]);
        assert!(decoder.next_body().unwrap_err().is_too_large());
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(texts in proptest::collection::vec(".{0,40}", 1..6), cut in 1usize..9) {
            let stream: Vec<u8> = texts.iter().flat_map(|text| encode(text).unwrap()).collect();
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for bytes in stream.chunks(cut) {
                decoder.push(bytes);
                while let Some(body) = decoder.next_body().unwrap() {
                    got.push(decode::<String>(&body).unwrap());
                }
            }
            prop_assert_eq!(got, texts);
            prop_assert!(!decoder.is_mid_frame());
        }
    }
}
