//! `CNI_ARGS`: `KEY=value` pairs separated by `;`.
//!
//! Unknown keys are tolerated and kept, with or without `IgnoreUnknown`: a runtime may pass what is meant for another
//! plugin of the chain.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::addr::{MacAddr, parse_ip};
use crate::error::{CniError, ErrorCode};
use crate::ident;

/// The arguments that mean something to Buoy; empty values count as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniArgs {
    /// `K8S_POD_NAMESPACE`.
    pub pod_namespace: Option<String>,
    /// `K8S_POD_NAME`.
    pub pod_name: Option<String>,
    /// `K8S_POD_INFRA_CONTAINER_ID`.
    pub infra_container_id: Option<String>,
    /// `K8S_POD_UID`.
    pub pod_uid: Option<String>,
    /// `BUOY_NAMESPACE`: the workload's namespace where there is no Kubernetes.
    pub buoy_namespace: Option<String>,
    /// `IP`: the addresses the workload asks for, in order; one, or a list separated by commas.
    pub ips: Vec<IpAddr>,
    /// `MAC`: the hardware address the workload asks for.
    pub mac: Option<MacAddr>,
    /// `IgnoreUnknown`; only for a plugin that is run in turn.
    pub ignore_unknown: bool,
    /// Every other pair.
    pub other: BTreeMap<String, String>,
}

impl CniArgs {
    /// Parses the text of `CNI_ARGS`. Error: code 4, naming the pair.
    pub fn parse(text: &str) -> Result<Self, CniError> {
        let mut args = Self::default();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(invalid(format!("invalid pair {pair:?}")));
            };
            args.set(key, value)
                .map_err(|problem| invalid(format!("error parsing value of pair {pair:?}: {problem}")))?;
        }
        Ok(args)
    }

    /// The workload's namespace, if the arguments name one: Kubernetes' before Buoy's.
    pub fn namespace(&self) -> Option<&str> {
        self.pod_namespace.as_deref().or(self.buoy_namespace.as_deref())
    }

    /// Namespace and name of the Kubernetes pod, if the arguments name both (else it is no Kubernetes workload).
    pub fn pod(&self) -> Option<(&str, &str)> {
        self.pod_namespace.as_deref().zip(self.pod_name.as_deref())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
        match key {
            "K8S_POD_NAMESPACE" => self.pod_namespace = name(value)?,
            "K8S_POD_NAME" => self.pod_name = name(value)?,
            "K8S_POD_INFRA_CONTAINER_ID" => self.infra_container_id = text(),
            "K8S_POD_UID" => self.pod_uid = text(),
            "BUOY_NAMESPACE" => self.buoy_namespace = name(value)?,
            "IP" => self.ips = addresses(value)?,
            "MAC" if value.is_empty() => self.mac = None,
            "MAC" => self.mac = Some(value.parse::<MacAddr>().map_err(|error| error.to_string())?),
            "IgnoreUnknown" => self.ignore_unknown = flag(value)?,
            _ => drop(self.other.insert(key.to_owned(), value.to_owned())),
        }
        Ok(())
    }
}

fn invalid(problem: String) -> CniError {
    CniError::new(ErrorCode::INVALID_ENVIRONMENT, format!("ARGS: {problem}"))
        .with_hint("CNI_ARGS must be KEY=value pairs separated by semicolons")
}

fn name(value: &str) -> Result<Option<String>, String> {
    match value {
        "" => Ok(None),
        _ if ident::is_name(value) => Ok(Some(value.to_owned())),
        _ => Err("not a name: expected letters, digits, `-`, `_` and `.`".to_owned()),
    }
}

fn addresses(value: &str) -> Result<Vec<IpAddr>, String> {
    let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| parse_ip(part).map_err(|_| format!("invalid IP address: {part}")))
        .collect()
}

fn flag(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("boolean unmarshal error: invalid input {value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_arguments() {
        let args = CniArgs::parse(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=f00;K8S_POD_UID=u-1",
        )
        .unwrap();
        assert_eq!(args.pod(), Some(("shop", "web-0")));
        assert_eq!(args.namespace(), Some("shop"));
        assert_eq!(
            (args.infra_container_id.as_deref(), args.pod_uid.as_deref()),
            (Some("f00"), Some("u-1"))
        );
        assert!(args.ignore_unknown && args.other.is_empty());
    }

    #[test]
    fn addresses_mac_and_unknown_keys() {
        let args =
            CniArgs::parse("IP=192.0.2.1, 2001:db8::1;MAC=02:00:00:00:00:07;COLOUR=a=b;EMPTY=;").unwrap();
        assert_eq!(
            args.ips,
            [IpAddr::from([192, 0, 2, 1]), "2001:db8::1".parse().unwrap()]
        );
        assert_eq!(args.mac, Some(MacAddr([2, 0, 0, 0, 0, 7])));
        assert_eq!(args.other["COLOUR"], "a=b");
        assert_eq!(args.other["EMPTY"], "");
    }

    #[test]
    fn empty_values_are_absent() {
        let args = CniArgs::parse("K8S_POD_NAMESPACE=;K8S_POD_NAME=;IP=;MAC=;BUOY_NAMESPACE=dev").unwrap();
        assert_eq!((args.pod(), args.namespace()), (None, Some("dev")));
        assert!(args.ips.is_empty() && args.mac.is_none());
        assert_eq!(CniArgs::parse("").unwrap(), CniArgs::default());
    }

    #[test]
    fn errors_are_code_4_and_name_the_pair() {
        let cases = [
            ("foo", "ARGS: invalid pair \"foo\""),
            ("=x", "ARGS: invalid pair \"=x\""),
            (
                "IP=web",
                "ARGS: error parsing value of pair \"IP=web\": invalid IP address: web",
            ),
            (
                "MAC=zz",
                "ARGS: error parsing value of pair \"MAC=zz\": not a MAC address: \"zz\"",
            ),
            (
                "IgnoreUnknown=ja",
                "ARGS: error parsing value of pair \"IgnoreUnknown=ja\": ",
            ),
            (
                "K8S_POD_NAME=a/b",
                "ARGS: error parsing value of pair \"K8S_POD_NAME=a/b\": not a name",
            ),
        ];
        for (text, start) in cases {
            let error = CniArgs::parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::INVALID_ENVIRONMENT);
            assert!(error.msg.starts_with(start), "{}", error.msg);
        }
    }
}
