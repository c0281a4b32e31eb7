//! What probes and servers say to each other: a number there, the number with two facts back.

use std::net::IpAddr;

/// A server's answer to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Number of the question.
    pub number: u32,
    /// Name of the workload that answered; empty where the kernel answers (ping).
    pub who: String,
    /// Source address of the question as the workload saw it; none where the kernel answers.
    pub saw: Option<IpAddr>,
}

impl Answer {
    /// `number who saw`, the text of an answer.
    pub fn encode(&self) -> String {
        let saw = self.saw.map(|ip| ip.to_string()).unwrap_or_default();
        format!("{} {} {saw}", self.number, self.who)
    }

    /// Reads the text of an answer; `None` if it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.trim_end_matches(['\n', '\0']).split(' ');
        Some(Self {
            number: words.next()?.parse().ok()?,
            // A server has a name; without one it is a question, which a raw socket of the workload itself hears too.
            who: words.next().filter(|who| !who.is_empty())?.to_owned(),
            saw: words.next()?.parse().ok(),
        })
    }
}

/// Reads the text of a question.
pub(crate) fn decode_question(bytes: &[u8]) -> Option<u32> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_read_back() {
        for saw in [None, "192.0.2.1".parse().ok(), "2001:db8::1".parse().ok()] {
            let answer = Answer {
                number: 7,
                who: "web-0".to_owned(),
                saw,
            };
            assert_eq!(Answer::decode(answer.encode().as_bytes()), Some(answer));
        }
        assert_eq!(Answer::decode(b"seven web-0 "), None);
        assert_eq!(Answer::decode(b"7"), None);
        assert_eq!(Answer::decode(b"7    "), None);
        assert_eq!(Answer::decode(&[0xff, 0xfe]), None);
    }
}
