//! Until when this client's own certificate is valid. Servers that refuse it for that do not say so, or not so that people
//! understand; nothing else is decided by it.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// Since when the first certificate of a file in PEM form is not valid any more. `None`: it is, or it cannot be read.
pub(crate) fn expired(pem: &[u8], now: Timestamp) -> Option<Timestamp> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let certificate = Certificate::from_der(&der).ok()?;
    let until = certificate.tbs_certificate().validity().not_after;
    let until = Timestamp::new(until.to_unix_duration().as_secs().try_into().ok()?, 0).ok()?;
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

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
