//! Until when this client's own certificate is valid (RFC 5280, section 4.1). Servers that refuse it for that do not say so, or
//! not so that people understand; nothing else is decided by it.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use k8s_openapi::ByteString;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Tags of DER: the times of a certificate, and what its version is in.
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

/// Since when the first certificate of a file in PEM form is not valid any more. `None`: it is, or it cannot be read.
pub(crate) fn expired(pem: &[u8], now: Timestamp) -> Option<Timestamp> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once(BEGIN)?;
    let (body, _) = rest.split_once(END)?;
    let until = not_after(&from_base64(body)?)?;
    (until < now).then_some(until)
}

/// Whether a complaint about a server's certificate is that it is not valid any more, or not yet.
pub(crate) fn is_of_another_time(complaint: &str) -> bool {
    complaint.contains("certificate expired") || complaint.contains("certificate not valid yet")
}

/// What a text in base 64 stands for, whatever white space is in it.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text: String = text.split_whitespace().collect();
    let ByteString(bytes) = serde_json::from_value(text.into()).ok()?;
    Some(bytes)
}

fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = Elements(der).next()?;
    let (_, signed) = Elements(certificate).next()?;
    // Version (of an old one there is none), serial number, algorithm, issuer, and then the validity.
    let mut fields = Elements(signed).skip_while(|(tag, _)| *tag == VERSION);
    let (_, validity) = fields.nth(3)?;
    let (tag, text) = Elements(validity).nth(1)?;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        // Two digits of the year: those of this century, up to 2049.
        UTC_TIME if text < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// What is in DER, one element after another: tag and content.
struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [tag, first, rest @ ..] = self.0 else {
            return None;
        };
        let (length, rest) = match first {
            0..0x80 => (usize::from(*first), rest),
            _ => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = digits.iter().try_fold(0_usize, |length, digit| {
                    length.checked_mul(256)?.checked_add(usize::from(*digit))
                });
                (length?, rest)
            }
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
