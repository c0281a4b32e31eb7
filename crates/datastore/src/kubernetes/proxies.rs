//! Proxies on the way to the API server: the one that a kubeconfig names or, where it names none, that of the environment, by
//! the rules of kubectl and of every other client in Go.

use std::net::IpAddr;

use http::Uri;
use ipnet::IpNet;
use kube::config::Kubeconfig;

use crate::redact::redacted;

/// What the environment says.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Proxies {
    https: Option<String>,
    http: Option<String>,
    exempt: Vec<Exempt>,
}

/// Passwords stay out of what is printed.
impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies")
            .field("https", &self.https.as_deref().map(redacted))
            .field("http", &self.http.as_deref().map(redacted))
            .field("exempt", &self.exempt)
            .finish()
    }
}

/// A server that is reached without proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exempt {
    All,
    Net(IpNet),
    Address(IpAddr, Option<u16>),
    Name {
        name: String,
        port: Option<u16>,
        /// Or only what is below it.
        itself: bool,
    },
}

impl Proxies {
    /// Reads `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, or what is written like them in small letters.
    pub(super) fn of(env: impl Fn(&str) -> Option<String>) -> Self {
        let read = |name: &str| {
            let found = [name.to_owned(), name.to_lowercase()];
            let mut found = found.iter().filter_map(|name| env(name));
            found.find(|value| !value.is_empty())
        };
        let exempt = read("NO_PROXY").unwrap_or_default();
        Self {
            https: read("HTTPS_PROXY"),
            http: read("HTTP_PROXY"),
            exempt: exempt.split(',').filter_map(Exempt::parse).collect(),
        }
    }

    /// The proxy for a server, where a kubeconfig names this one. That is asked for whatever the environment says.
    ///
    /// Error: a message for people.
    pub(super) fn toward(&self, server: &Uri, named: Option<&str>) -> Result<Option<Uri>, String> {
        match named.or_else(|| self.of_environment(server)) {
            Some(proxy) => parsed(proxy).map(Some),
            None => Ok(None),
        }
    }

    fn of_environment(&self, server: &Uri) -> Option<&str> {
        let host = server.host()?.trim_matches(['[', ']']).to_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return None;
        }
        let (proxy, port) = match server.scheme_str() {
            Some("http") => (&self.http, 80),
            _ => (&self.https, 443),
        };
        let port = server.port_u16().unwrap_or(port);
        let is_exempt = self
            .exempt
            .iter()
            .any(|exempt| exempt.covers(&host, address, port));
        proxy.as_deref().filter(|_| !is_exempt)
    }
}

impl Exempt {
    /// `None` for what says nothing.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_lowercase();
        if text == "*" {
            return Some(Self::All);
        }
        if let Ok(net) = text.parse() {
            return Some(Self::Net(net));
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse() {
            return Some(Self::Address(address, None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host.trim_matches(['[', ']']), Some(port.parse().ok()?)),
            None => (text.as_str(), None),
        };
        if let Ok(address) = host.parse() {
            return Some(Self::Address(address, port));
        }
        let host = host.strip_prefix('*').unwrap_or(host);
        let name = host.strip_prefix('.').unwrap_or(host);
        (!name.is_empty()).then(|| Self::Name {
            name: name.to_owned(),
            port,
            itself: name == host,
        })
    }

    fn covers(&self, host: &str, address: Option<IpAddr>, at: u16) -> bool {
        let is_there = |port: &Option<u16>| port.is_none_or(|port| port == at);
        match self {
            Self::All => true,
            Self::Net(net) => address.is_some_and(|address| net.contains(&address)),
            Self::Address(exempt, port) => address == Some(*exempt) && is_there(port),
            Self::Name { name, port, itself } => {
                let below = host.strip_suffix(name.as_str());
                let is_named =
                    below.is_some_and(|below| (below.is_empty() && *itself) || below.ends_with('.'));
                is_named && is_there(port)
            }
        }
    }
}

/// The proxy that a kubeconfig names for a context's cluster.
pub(super) fn named(kubeconfig: &Kubeconfig, context: Option<&str>) -> Option<String> {
    let name = context.or(kubeconfig.current_context.as_deref())?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == name)?;
    let cluster = &context.context.as_ref()?.cluster;
    let cluster = kubeconfig.clusters.iter().find(|named| named.name == *cluster)?;
    let proxy = cluster.cluster.as_ref()?.proxy_url.clone();
    proxy.filter(|proxy| !proxy.is_empty())
}

/// A proxy as messages show it.
pub(super) fn shown(proxy: &Uri) -> String {
    redacted(proxy.to_string().trim_end_matches('/'))
}

fn parsed(proxy: &str) -> Result<Uri, String> {
    let whole = if proxy.contains("://") {
        proxy.to_owned()
    } else {
        format!("http://{proxy}")
    };
    let uri: Option<Uri> = whole.parse().ok();
    let uri = uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    uri.ok_or_else(|| {
        format!(
            "not a proxy that can be used: {}\nwrite it as http://proxy.example:3128",
            redacted(proxy)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toward(env: &[(&str, &str)], server: &str, named: Option<&str>) -> Result<Option<String>, String> {
        let proxies = Proxies::of(|wanted| {
            let found = env.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        });
        let proxy = proxies.toward(&server.parse().unwrap(), named)?;
        Ok(proxy.map(|proxy| proxy.to_string()))
    }

    fn through(env: &[(&str, &str)], server: &str) -> Option<String> {
        toward(env, server, None).unwrap()
    }

    #[test]
    fn a_kubeconfig_s_proxy_wins_and_the_environment_s_is_by_scheme() {
        let env = [
            ("HTTPS_PROXY", "http://a:3128"),
            ("https_proxy", "http://b:3128"),
            ("http_proxy", "c:3128"),
            ("NO_PROXY", "api.example"),
        ];
        let shown = |proxy: &str| Some(format!("http://{proxy}/"));
        assert_eq!(through(&env, "https://10.0.0.1:6443"), shown("a:3128"));
        assert_eq!(through(&env, "http://10.0.0.1:6443"), shown("c:3128"));
        assert_eq!(through(&env[1..], "https://10.0.0.1:6443"), shown("b:3128"));
        assert_eq!(through(&[("HTTPS_PROXY", "")], "https://10.0.0.1:6443"), None);
        assert_eq!(through(&env, "https://api.example:6443"), None);
        let named = toward(&env, "https://api.example:6443", Some("http://d:3128"));
        assert_eq!(named, Ok(shown("d:3128")));
    }

    #[test]
    fn who_is_exempt_is_reached_directly() {
        for (exempt, server, is_exempt) in [
            ("*", "https://api.example", true),
            ("", "https://api.example", false),
            (" ,,", "https://api.example", false),
            ("example", "https://api.example", true),
            ("Example", "https://API.example", true),
            (".example", "https://api.example", true),
            ("*.example", "https://api.example", true),
            (".api.example", "https://api.example", false),
            ("ample", "https://api.example", false),
            ("api.example:443", "https://api.example", true),
            ("api.example:6443", "https://api.example", false),
            ("a.b, api.example:6443", "https://api.example:6443", true),
            ("10.96.0.0/12", "https://10.96.0.1", true),
            ("10.96.0.0/12", "https://10.95.0.1", false),
            ("10.96.0.1", "https://10.96.0.1:6443", true),
            ("10.96.0.1:443", "https://10.96.0.1:6443", false),
            ("fd00::/8", "https://[fd00::1]:6443", true),
            ("fd00::1", "https://[fd00::1]:6443", true),
            ("[fd00::1]:6443", "https://[fd00::1]:6443", true),
            ("[fd00::1]:443", "https://[fd00::1]:6443", false),
        ] {
            let env = [("HTTPS_PROXY", "http://a:3128"), ("no_proxy", exempt)];
            let is_direct = through(&env, server).is_none();
            assert_eq!(is_direct, is_exempt, "{exempt}: {server}");
        }
        let env = [("HTTPS_PROXY", "http://a:3128")];
        for own in [
            "https://localhost:6443",
            "https://127.0.0.1:6443",
            "https://[::1]",
        ] {
            assert_eq!(through(&env, own), None, "{own}");
        }
    }

    #[test]
    fn what_is_no_proxy_says_how_to_write_one_and_no_password() {
        for bad in ["socks5://me:secret@a:1080", "http://", "me:secret@a b"] {
            let message = toward(&[("HTTPS_PROXY", bad)], "https://10.0.0.1", None).unwrap_err();
            assert!(
                message.ends_with("\nwrite it as http://proxy.example:3128"),
                "{message}"
            );
            assert!(!message.contains("secret"), "{message}");
        }
        let proxies = Proxies::of(|_| Some("http://me:secret@a".to_owned()));
        assert!(!format!("{proxies:?}").contains("secret@"), "{proxies:?}");
        let proxy = "http://me:secret@a:3128".parse().unwrap();
        assert_eq!(shown(&proxy), "http://…@a:3128");
    }
}
