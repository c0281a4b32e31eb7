//! Where the API server is and who to be there: from the URL of the store, and from the environment for what it leaves
//! out.

use std::path::PathBuf;

use crate::environment;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

/// Where leases are if nobody says so.
const NAMESPACE: &str = "buoy-system";

/// How to write the URL, for messages.
const USAGE: &str =
    "write it as kubernetes:/path/to/kubeconfig?context=name&namespace=name, or kubernetes: inside a pod";

/// What is needed to reach an API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// How messages call it.
    pub name: String,
    /// Namespace of the leases.
    pub namespace: String,
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
        let env = environment::of_calico(env);
        let rest = url.strip_prefix("kubernetes:").unwrap_or(url);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut context, mut namespace) = (env("K8S_CURRENT_CONTEXT"), NAMESPACE.to_owned());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("context", value)) => context = Some(value.to_owned()),
                Some(("namespace", value)) if buoy_api::names::is_dns_label(value) => {
                    value.clone_into(&mut namespace)
                }
                _ => {
                    return Err(format!(
                        "not an option of a Kubernetes datastore: {pair}\n{USAGE}"
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
            source,
        })
    }

    /// What a client is made from.
    ///
    /// Error: a message for people.
    pub(super) async fn config(&self) -> Result<Config, String> {
        match &self.source {
            Source::InCluster => Config::incluster()
                .map_err(|error| format!("the pod's service account cannot be read: {}", chain(&error))),
            Source::Kubeconfig { path, context } => {
                let complaint = |error: &dyn std::error::Error| {
                    format!("kubeconfig cannot be used: {}: {}", path.display(), chain(error))
                };
                let kubeconfig = Kubeconfig::read_from(path).map_err(|error| complaint(&error))?;
                let options = KubeConfigOptions {
                    context: context.clone(),
                    ..KubeConfigOptions::default()
                };
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
                config.map_err(|error| complaint(&error))
            }
            Source::Variables(text) => {
                let complaint = |error: &dyn std::error::Error| {
                    format!("the K8S_ variables cannot be used: {}", chain(error))
                };
                let kubeconfig: Kubeconfig = serde_json::from_str(text).map_err(|error| complaint(&error))?;
                let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
                config.map_err(|error| complaint(&error))
            }
        }
    }
}

fn source(
    path: &str,
    context: Option<String>,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<Source, String> {
    if !path.is_empty() {
        if !path.starts_with('/') {
            return Err(format!("not an absolute path: {path}\n{USAGE}"));
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

/// An error with what caused it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text
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
