//! Where the API server is and who to be there: from the URL of the store, and from the environment for what it leaves
//! out.

use std::path::PathBuf;

use jiff::Timestamp;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use serde_json::json;

use super::pace::Rate;
use super::proxies::{self, Proxies};
use crate::cause::chain;
use crate::certificate;
use crate::codec::objects::CalicoGroup;
use crate::environment;
use crate::redact::redacted;

/// Where leases are if nobody says so.
const NAMESPACE: &str = "buoy-system";

/// How to write the URL, for messages.
const USAGE: &str = "write it as kubernetes:/path/to/kubeconfig?context=name&namespace=name&qps=50&burst=100, or kubernetes: inside a pod";

/// What is needed to reach an API server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    /// How messages call it.
    pub name: String,
    /// Namespace of the leases.
    pub namespace: String,
    /// The group of Calico's records.
    pub calico: CalicoGroup,
    /// How fast to ask.
    pub rate: Rate,
    proxies: Proxies,
    source: Source,
}

/// Where the rest is said. Files are read whenever a client is made, so that new ones take effect.
#[derive(Clone, PartialEq, Eq)]
enum Source {
    Kubeconfig {
        path: PathBuf,
        context: Option<String>,
    },
    InCluster,
    /// Calico's variables, as the text of a kubeconfig.
    Variables(String),
}

/// Tokens stay out of what is printed.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kubeconfig { path, context } => f
                .debug_struct("Kubeconfig")
                .field("path", path)
                .field("context", context)
                .finish(),
            Self::InCluster => f.write_str("InCluster"),
            Self::Variables(_) => f.debug_struct("Variables").finish_non_exhaustive(),
        }
    }
}

impl Settings {
    /// Reads a URL that begins with `kubernetes:`. `env` looks up variables of the environment.
    ///
    /// Error: a message for people.
    pub(super) fn parse(url: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let proxies = Proxies::of(&env);
        let env = environment::of_calico(env);
        let rest = url.strip_prefix("kubernetes:").unwrap_or(url);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut context, mut namespace) = (env("K8S_CURRENT_CONTEXT"), NAMESPACE.to_owned());
        // Calico's programs read the one; its guides have the other as well.
        let either = |one: &str, other: &str| env(one).or_else(|| env(other));
        let mut qps = either("K8SCLIENTQPS", "K8S_CLIENT_QPS");
        let mut burst = either("K8SCLIENTBURST", "K8S_CLIENT_BURST");
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("context", value)) => context = Some(value.to_owned()),
                Some(("qps", value)) => qps = Some(value.to_owned()),
                Some(("burst", value)) => burst = Some(value.to_owned()),
                Some(("namespace", value)) if buoy_api::names::is_dns_label(value) => {
                    value.clone_into(&mut namespace)
                }
                _ => {
                    return Err(format!(
                        "not an option of a Kubernetes datastore: {}\n{USAGE}",
                        redacted(pair)
                    ));
                }
            }
        }
        let source = source(path, context, &env)?;
        Ok(Self {
            name: match &source {
                Source::Kubeconfig { path, .. } => format!("kubernetes:{}", path.display()),
                Source::InCluster | Source::Variables(_) => "kubernetes:".to_owned(),
            },
            namespace,
            calico: calico_group(env("API_GROUP").as_deref())?,
            rate: rate(qps.as_deref(), burst.as_deref())?,
            proxies,
            source,
        })
    }

    /// What a client is made from.
    ///
    /// Error: a message for people.
    pub(super) async fn config(&self) -> Result<Config, String> {
        let (mut config, proxy) = self.source.config().await?;
        // The client's own idea of who is reached without proxy is another than kubectl's.
        config.proxy_url = self.proxies.toward(&config.cluster_url, proxy.as_deref())?;
        Ok(config)
    }

    /// Since when the certificate that this client shows is not valid any more, if it is not.
    pub(super) async fn expired(&self, now: Timestamp) -> Option<Timestamp> {
        let user = self.config().await.ok()?.auth_info;
        let pem = match (user.client_certificate_data, user.client_certificate) {
            (Some(data), _) => certificate::from_base64(&data)?,
            (None, Some(path)) => std::fs::read(path).ok()?,
            (None, None) => return None,
        };
        certificate::expired(&pem, now)
    }
}

impl Source {
    /// How to reach a server, and the proxy that is named for it.
    async fn config(&self) -> Result<(Config, Option<String>), String> {
        let (kubeconfig, context, what) = match self {
            Self::InCluster => {
                let config = Config::incluster().map_err(|error| {
                    format!("the pod's service account cannot be read: {}", chain(&error))
                })?;
                return Ok((config, None));
            }
            Self::Kubeconfig { path, context } => {
                let what = format!("kubeconfig cannot be used: {}", path.display());
                (Kubeconfig::read_from(path), context.clone(), what)
            }
            Self::Variables(text) => {
                let kubeconfig = Kubeconfig::from_yaml(text);
                (kubeconfig, None, "the K8S_ variables cannot be used".to_owned())
            }
        };
        let complaint = |error: KubeconfigError| format!("{what}: {}", chain(&error));
        let kubeconfig = kubeconfig.map_err(complaint)?;
        let proxy = proxies::named(&kubeconfig, context.as_deref());
        let options = KubeConfigOptions {
            context,
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        Ok((config.map_err(complaint)?, proxy))
    }
}

/// As Calico's own programs read it.
fn calico_group(name: Option<&str>) -> Result<CalicoGroup, String> {
    match name {
        None | Some("crd.projectcalico.org/v1") => Ok(CalicoGroup::Crd),
        Some("projectcalico.org/v3") => Ok(CalicoGroup::V3),
        Some(other) => Err(format!(
            "CALICO_API_GROUP is none of Calico's: {other}\nset it to crd.projectcalico.org/v1 or projectcalico.org/v3"
        )),
    }
}

fn rate(qps: Option<&str>, burst: Option<&str>) -> Result<Rate, String> {
    let default = Rate::default();
    let usable = |qps: &f64| qps.is_finite() && *qps >= 0.0;
    let qps = qps.map_or(Ok(default.qps), |text| {
        let parsed = text.parse().ok().filter(usable);
        parsed.ok_or_else(|| {
            format!("qps is not a number of requests: {text}\nwrite qps=50, or qps=0 for any number")
        })
    })?;
    let burst = burst.map_or(Ok(default.burst), |text| {
        let parsed = text.parse().ok().filter(|burst| *burst > 0);
        parsed.ok_or_else(|| format!("burst is not a number of requests: {text}\nwrite burst=100"))
    })?;
    Ok(Rate { qps, burst })
}

fn source(
    path: &str,
    context: Option<String>,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<Source, String> {
    if !path.is_empty() {
        if !path.starts_with('/') {
            return Err(format!("not an absolute path: {}\n{USAGE}", redacted(path)));
        }
        let path = path.into();
        return Ok(Source::Kubeconfig { path, context });
    }
    if let Some(server) = env("K8S_API_ENDPOINT") {
        return Ok(Source::Variables(variables(&server, env)));
    }
    if let Some(path) = env("KUBECONFIG") {
        let path = path.into();
        return Ok(Source::Kubeconfig { path, context });
    }
    if env("KUBERNETES_SERVICE_HOST").is_some() {
        return Ok(Source::InCluster);
    }
    Err(format!(
        "no API server is named: neither KUBECONFIG nor KUBERNETES_SERVICE_HOST is set\n{USAGE}"
    ))
}

/// The kubeconfig that Calico's variables stand for.
fn variables(server: &str, env: &impl Fn(&str) -> Option<String>) -> String {
    let is_trusting = env("K8S_INSECURE_SKIP_TLS_VERIFY").is_some_and(|text| text == "true");
    json!({
        "current-context": "calico",
        "contexts": [{"name": "calico", "context": {"cluster": "calico", "user": "calico"}}],
        "clusters": [{"name": "calico", "cluster": {
            "server": server,
            "certificate-authority": env("K8S_CA_FILE"),
            "insecure-skip-tls-verify": is_trusting,
        }}],
        "users": [{"name": "calico", "user": {
            "token": env("K8S_API_TOKEN"),
            "client-certificate": env("K8S_CERT_FILE"),
            "client-key": env("K8S_KEY_FILE"),
        }}],
    })
    .to_string()
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

    #[test]
    fn the_url_wins_over_the_environment() {
        let settings = parse("kubernetes:/a?context=b&namespace=c", &[("KUBECONFIG", "/d")]).unwrap();
        assert_eq!(settings.name, "kubernetes:/a");
        assert_eq!(settings.namespace, "c");
        let context = Some("b".to_owned());
        assert_eq!(
            settings.source,
            Source::Kubeconfig {
                path: "/a".into(),
                context
            }
        );
    }

    #[test]
    fn what_the_url_leaves_out_is_in_the_environment() {
        let settings = parse(
            "kubernetes:",
            &[("CALICO_KUBECONFIG", "/d"), ("KUBECONFIG", "/e")],
        )
        .unwrap();
        assert_eq!(
            (settings.name.as_str(), settings.namespace.as_str()),
            ("kubernetes:/d", NAMESPACE)
        );
        let settings = parse("kubernetes:", &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]).unwrap();
        assert_eq!(settings.source, Source::InCluster);
        let env = [
            ("K8S_API_ENDPOINT", "https://a:6443"),
            ("K8S_API_TOKEN", "secret"),
        ];
        let settings = parse("kubernetes:", &env).unwrap();
        assert!(!format!("{settings:?}").contains("secret"), "{settings:?}");
    }

    #[test]
    fn the_rate_is_client_go_s() {
        let rate = |url: &str, env: &[(&str, &str)]| {
            let settings = parse(url, env).unwrap();
            (settings.rate.qps, settings.rate.burst)
        };
        assert_eq!(rate("kubernetes:/a", &[]), (50.0, 100));
        let env = [("CALICO_K8SCLIENTQPS", "7.5"), ("CALICO_K8SCLIENTBURST", "9")];
        assert_eq!(rate("kubernetes:/a", &env), (7.5, 9));
        assert_eq!(rate("kubernetes:/a?qps=0&burst=1", &env), (0.0, 1));
        for (option, begins) in [
            ("qps=-1", "qps is not a number of requests: -1\n"),
            ("qps=inf", "qps is not"),
            ("burst=0", "burst is not a number of requests: 0\n"),
        ] {
            let message = parse(&format!("kubernetes:/a?{option}"), &[]).unwrap_err();
            assert!(message.starts_with(begins), "{message}");
        }
    }

    #[test]
    fn the_group_is_the_one_that_calico_uses() {
        let group = |env: &[(&str, &str)]| parse("kubernetes:/a", env).map(|settings| settings.calico);
        assert_eq!(group(&[]), Ok(CalicoGroup::Crd));
        let of = |name| [("CALICO_API_GROUP", name)];
        assert_eq!(group(&of("crd.projectcalico.org/v1")), Ok(CalicoGroup::Crd));
        assert_eq!(group(&of("projectcalico.org/v3")), Ok(CalicoGroup::V3));
        assert!(
            group(&of("v3"))
                .unwrap_err()
                .starts_with("CALICO_API_GROUP is none")
        );
    }

    #[test]
    fn what_cannot_be_meant_says_how_to_write_it() {
        for url in [
            "kubernetes:",
            "kubernetes:a",
            "kubernetes:/a?b=c",
            "kubernetes:/a?namespace=B",
        ] {
            let message = parse(url, &[]).unwrap_err();
            assert!(message.contains("write it as kubernetes:/path"), "{message}");
        }
    }
}
