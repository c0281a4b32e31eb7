//! Where an etcd is and how to be let in: from the URL of the store, and from Calico's environment variables for what
//! the URL leaves out.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::environment;

/// Port of etcd's clients.
const PORT: u16 = 2379;

/// How to write the URL, for messages.
const USAGE: &str = "write it as etcd://host:port,host:port?ca=/ca.pem&cert=/client.pem&key=/client.key";

/// What may be a password is not shown.
const ESCAPE: &str =
    "the URL of an etcd has an @ after its ?\nwrite ? in a password as %3F, and @ in an option as %40";

/// What is needed to reach an etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Its members, never none.
    pub endpoints: Vec<Endpoint>,
    /// How to know a member, and to be known by it.
    pub tls: Tls,
    /// Who to be.
    pub user: Option<User>,
}

/// Where a member listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `host:port`.
    pub authority: String,
    /// By TLS.
    pub is_secure: bool,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority)
    }
}

/// Files for TLS. They are read whenever a connection is made, so that new ones take effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tls {
    /// Who signs the certificates of members; the system's list if absent.
    pub ca: Option<PathBuf>,
    /// Certificate and key of this client.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A user of etcd.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct User {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: Password,
}

/// Passwords stay out of what is printed.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Where a password is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Password {
    /// Here.
    Known(String),
    /// In a file that is read whenever it is needed.
    File(PathBuf),
}

/// What the query of a URL says.
#[derive(Default)]
struct Query {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    password_file: Option<PathBuf>,
    tls: Option<bool>,
}

impl Settings {
    /// Reads a URL that begins with `etcd:`. `env` looks up variables of the environment.
    ///
    /// Error: a message for people.
    pub(super) fn parse(url: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let env = environment::of_calico(env);
        let rest = url.strip_prefix("etcd:").unwrap_or(url);
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user, hosts) = place
            .rsplit_once('@')
            .map_or((None, place), |(user, hosts)| (Some(user), hosts));
        if query.contains('@') {
            return Err(ESCAPE.to_owned());
        }
        let query = Query::parse(query)?;
        let tls = tls(&query, &env)?;
        let hosts = hosts.trim_end_matches('/');
        let is_secure = query.tls.unwrap_or(tls != Tls::default());
        let endpoints: Vec<Endpoint> = if hosts.is_empty() {
            endpoints_of_environment(&env)?
        } else {
            let each = hosts.split(',').map(|host| endpoint(host, is_secure));
            each.collect::<Result<_, _>>()?
        };
        let secure = endpoints.iter().find(|endpoint| endpoint.is_secure);
        if let (Some(false), Some(endpoint)) = (query.tls, secure) {
            return Err(format!(
                "tls is off, and a member is named by https: {endpoint}\nwrite http there, or leave tls=off out"
            ));
        }
        Ok(Self {
            endpoints,
            tls,
            user: self::user(user, query.password_file, &env)?,
        })
    }

    /// How messages call the store: without user and password.
    pub(super) fn name(&self) -> String {
        let hosts: Vec<&str> = self
            .endpoints
            .iter()
            .map(|endpoint| endpoint.authority.as_str())
            .collect();
        format!("etcd://{}", hosts.join(","))
    }
}

impl Query {
    fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            if value.is_empty() {
                return Err(format!("option without a value: {name}\n{USAGE}"));
            }
            match name {
                "ca" => query.ca = Some(value.into()),
                "cert" => query.cert = Some(value.into()),
                "key" => query.key = Some(value.into()),
                "password-file" => query.password_file = Some(value.into()),
                "tls" => query.tls = Some(switch(&value)?),
                _ => {
                    return Err(format!(
                        "unknown option: {name}\nuse ca, cert, key, password-file or tls"
                    ));
                }
            }
        }
        Ok(query)
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!(
            "tls is neither on nor off: {text}\nwrite tls=on or tls=off"
        )),
    }
}

fn decoded(text: &str) -> Result<String, String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| format!("not UTF-8: {text}\nwrite other characters as % and two digits"))
}

fn tls(query: &Query, env: &impl Fn(&str) -> Option<String>) -> Result<Tls, String> {
    if query.tls == Some(false) {
        return Ok(Tls::default());
    }
    let file = |asked: &Option<PathBuf>, name: &str| asked.clone().or_else(|| env(name).map(PathBuf::from));
    let cert = file(&query.cert, "ETCD_CERT_FILE");
    let key = file(&query.key, "ETCD_KEY_FILE");
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => {
            return Err(
                "certificate and key of the client go together\ngive both cert and key, or neither"
                    .to_owned(),
            );
        }
    };
    Ok(Tls {
        ca: file(&query.ca, "ETCD_CA_CERT_FILE"),
        identity,
    })
}

fn user(
    given: Option<&str>,
    password_file: Option<PathBuf>,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<Option<User>, String> {
    let (name, inline) = match given {
        Some(given) => {
            let (name, password) = given
                .split_once(':')
                .map_or((given, None), |(name, password)| (name, Some(password)));
            let decoded =
                |text| decoded(text).map_err(|_| format!("user or password of etcd are not UTF-8\n{USAGE}"));
            (Some(decoded(name)?), password.map(decoded).transpose()?)
        }
        None => (env("ETCD_USERNAME"), None),
    };
    let Some(name) = name else { return Ok(None) };
    let known = || inline.or_else(|| env("ETCD_PASSWORD")).map(Password::Known);
    let password = password_file
        .map(Password::File)
        .or_else(known)
        .ok_or_else(|| format!("no password for user: {name}\ngive password-file, or set ETCD_PASSWORD"))?;
    Ok(Some(User { name, password }))
}

/// A member in the URL: `host`, `host:port`, `[address]`, `[address]:port`.
fn endpoint(text: &str, is_secure: bool) -> Result<Endpoint, String> {
    let refuse = || format!("not the address of an etcd: {text:?}\n{USAGE}");
    let after_host = text.rfind(']').map_or(text, |end| &text[end + 1..]);
    let host = match after_host.rsplit_once(':') {
        Some((_, port)) => {
            port.parse::<u16>()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(refuse)?;
            &text[..text.len() - port.len() - 1]
        }
        None => text,
    };
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    let is_usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || !(is_bracketed || host.chars().all(is_usable)) {
        return Err(refuse());
    }
    let authority = if host.len() == text.len() {
        format!("{text}:{PORT}")
    } else {
        text.to_owned()
    };
    Ok(Endpoint { authority, is_secure })
}

/// Members as Calico's variables name them.
fn endpoints_of_environment(env: &impl Fn(&str) -> Option<String>) -> Result<Vec<Endpoint>, String> {
    for variable in ["ETCD_ENDPOINTS", "ETCD_AUTHORITY"] {
        if env(variable).is_some_and(|text| text.contains('@')) {
            return Err(format!(
                "{variable} names a user\nname it in ETCD_USERNAME, and its password in ETCD_PASSWORD"
            ));
        }
    }
    if let Some(list) = env("ETCD_ENDPOINTS") {
        return list.split(',').map(|url| endpoint_of_url(url.trim())).collect();
    }
    if let Some(authority) = env("ETCD_AUTHORITY") {
        let scheme = env("ETCD_SCHEME").unwrap_or_else(|| "http".to_owned());
        return Ok(vec![endpoint_of_url(&format!("{scheme}://{authority}"))?]);
    }
    if env("ETCD_DISCOVERY_SRV").is_some() {
        return Err(format!(
            "etcd is not looked for in DNS: ETCD_DISCOVERY_SRV\nname its members in ETCD_ENDPOINTS, or {USAGE}"
        ));
    }
    Err(format!("no etcd is named\nset ETCD_ENDPOINTS, or {USAGE}"))
}

fn endpoint_of_url(url: &str) -> Result<Endpoint, String> {
    let (host, is_secure) = if let Some(host) = url.strip_prefix("https://") {
        (host, true)
    } else if let Some(host) = url.strip_prefix("http://") {
        (host, false)
    } else {
        return Err(format!(
            "not the URL of an etcd: {url:?}\nwrite those in ETCD_ENDPOINTS as https://host:port"
        ));
    };
    endpoint(host.trim_end_matches('/'), is_secure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str, env: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::parse(url, |wanted| {
            let found = env.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn endpoints(url: &str, env: &[(&str, &str)]) -> Vec<String> {
        let settings = parse(url, env).unwrap();
        settings.endpoints.iter().map(Endpoint::to_string).collect()
    }

    #[test]
    fn members_are_named_in_the_url() {
        assert_eq!(endpoints("etcd://10.0.0.1", &[]), ["http://10.0.0.1:2379"]);
        assert_eq!(
            endpoints("etcd://etcd-1:2380,[fd00::1]:4001,[fd00::2]/", &[]),
            [
                "http://etcd-1:2380",
                "http://[fd00::1]:4001",
                "http://[fd00::2]:2379"
            ]
        );
        assert_eq!(endpoints("etcd://a?tls=on", &[]), ["https://a:2379"]);
        assert_eq!(endpoints("etcd://a?ca=/ca.pem", &[]), ["https://a:2379"]);
        assert_eq!(
            endpoints("etcd://a", &[("ETCD_CA_CERT_FILE", "/ca.pem")]),
            ["https://a:2379"]
        );
        assert_eq!(
            endpoints("etcd://a?tls=off", &[("ETCD_CA_CERT_FILE", "/ca.pem")]),
            ["http://a:2379"]
        );
    }

    #[test]
    fn members_are_named_in_the_environment() {
        let env = [("ETCD_ENDPOINTS", "https://a:2379, http://b:4001/")];
        assert_eq!(endpoints("etcd:", &env), ["https://a:2379", "http://b:4001"]);
        assert_eq!(endpoints("etcd://", &env), ["https://a:2379", "http://b:4001"]);
        assert_eq!(endpoints("etcd://c", &env), ["http://c:2379"]);
        let old = [("ETCD_AUTHORITY", "a:4001"), ("ETCD_SCHEME", "https")];
        assert_eq!(endpoints("etcd:", &old), ["https://a:4001"]);
        let both = [
            ("ETCD_ENDPOINTS", "http://a"),
            ("CALICO_ETCD_ENDPOINTS", "http://b"),
        ];
        assert_eq!(endpoints("etcd:", &both), ["http://b:2379"]);
    }

    #[test]
    fn who_is_to_be_let_in() {
        let settings = parse(
            "etcd://us%40er:pass%2Fword@a?cert=/c%20c.pem&key=/k.pem",
            &[("ETCD_USERNAME", "other"), ("ETCD_CA_CERT_FILE", "/ca.pem")],
        )
        .unwrap();
        let user = settings.user.clone().unwrap();
        assert!(user.name == "us@er" && user.password == Password::Known("pass/word".to_owned()));
        let expected = Tls {
            ca: Some("/ca.pem".into()),
            identity: Some(("/c c.pem".into(), "/k.pem".into())),
        };
        assert_eq!(settings.tls, expected);
        assert!(!format!("{settings:?}").contains("pass/word"), "{settings:?}");
        assert_eq!(settings.name(), "etcd://a:2379");

        let env = [("ETCD_USERNAME", "calico"), ("ETCD_PASSWORD", "secret")];
        let user = parse("etcd://a", &env).unwrap().user.unwrap();
        assert!(user.name == "calico" && user.password == Password::Known("secret".to_owned()));
        let user = parse("etcd://me@a?password-file=/p", &env).unwrap().user.unwrap();
        assert!(user.name == "me" && user.password == Password::File("/p".into()));
        assert_eq!(parse("etcd://a", &[("ETCD_USERNAME", "")]).unwrap().user, None);
    }

    #[test]
    fn what_is_wrong_is_said_with_a_hint() {
        for (url, env, begins) in [
            (
                "etcd:",
                &[][..],
                "no etcd is named\nset ETCD_ENDPOINTS, or write it as etcd://",
            ),
            (
                "etcd://a:b",
                &[],
                "not the address of an etcd: \"a:b\"\nwrite it as",
            ),
            ("etcd://a:0", &[], "not the address of an etcd"),
            ("etcd://fd00::1", &[], "not the address of an etcd"),
            ("etcd://a,,b", &[], "not the address of an etcd: \"\""),
            ("etcd://a b", &[], "not the address of an etcd"),
            (
                "etcd://a?cert=/c",
                &[],
                "certificate and key of the client go together\n",
            ),
            ("etcd://a?ca=", &[], "option without a value: ca\n"),
            ("etcd://a?secure=1", &[], "unknown option: secure\nuse ca, "),
            ("etcd://a?tls=yes", &[], "tls is neither on nor off: yes\n"),
            ("etcd://a?ca=%ff", &[], "not UTF-8: %ff\n"),
            ("etcd://me@a", &[], "no password for user: me\n"),
            (
                "etcd://me:pass?word@a",
                &[],
                "the URL of an etcd has an @ after its ?\n",
            ),
            (
                "etcd:",
                &[("ETCD_ENDPOINTS", "http://me:pass,word@a")],
                "ETCD_ENDPOINTS names a user\n",
            ),
            (
                "etcd:",
                &[("ETCD_ENDPOINTS", "a:2379")],
                "not the URL of an etcd: \"a:2379\"\n",
            ),
            (
                "etcd:",
                &[("ETCD_DISCOVERY_SRV", "example")],
                "etcd is not looked for in DNS",
            ),
        ] {
            let message = parse(url, env).unwrap_err();
            assert!(message.starts_with(begins), "{url}: {message}");
        }
    }
}
