//! A kubeconfig for others on the node who expect Calico's. Buoy's own plugins need none.
//!
//! It holds the token of this pod's account as it is now, which Kubernetes lets expire; nobody renews it.

use serde_json::json;

use super::error::Result;
use super::render::MARK;
use super::settings::Settings;

/// Its name in the configuration directory.
pub(super) const NAME: &str = "calico-kubeconfig";

/// Its text: JSON is YAML.
pub(super) fn render(settings: &Settings) -> Result<String> {
    let host = settings.required("KUBERNETES_SERVICE_HOST")?;
    let port = settings.required("KUBERNETES_SERVICE_PORT")?;
    let config = json!({
        MARK: "buoy-cni",
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": {
            "server": server(&host, &port),
            "certificate-authority-data": base64(settings.account("ca.crt")?.as_bytes()),
        }}],
        "users": [{"name": "calico", "user": {"token": settings.account("token")?}}],
        "contexts": [{"name": "calico-context", "context": {"cluster": "local", "user": "calico"}}],
        "current-context": "calico-context",
    });
    Ok(format!("{config:#}\n"))
}

fn server(host: &str, port: &str) -> String {
    match host.contains(':') {
        true => format!("https://[{host}]:{port}"),
        false => format!("https://{host}:{port}"),
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |part: &[u8]| {
        let byte = |at: usize| u32::from(part.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        (0..4)
            .map(move |at| match at <= part.len() {
                true => char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]),
                false => '=',
            })
            .collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn an_address_of_version_6_stands_in_brackets() {
        assert_eq!(server("10.96.0.1", "443"), "https://10.96.0.1:443");
        assert_eq!(server("fd00::1", "443"), "https://[fd00::1]:443");
    }
}
