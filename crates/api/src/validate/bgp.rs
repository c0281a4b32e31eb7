//! Rules of a BGPPeer and a BGPConfiguration.

use std::ops::RangeInclusive;

use super::{Check, Invalid};
use crate::annotations::{BFD, BGP_HOLD_TIME};
use crate::bgp::{HOLD_SECONDS, KEEPALIVE_SECONDS, PeerAddress, RESTART_SECONDS, seconds};
use crate::meta::ObjectMeta;
use crate::selector::Selector;
use crate::v3::{BgpConfiguration, BgpConfigurationSpec, BgpPassword, BgpPeer, BgpPeerSpec};

/// Values of `logSeverityScreen`.
const SEVERITIES: [&str; 6] = ["Trace", "Debug", "Info", "Warning", "Error", "Fatal"];
/// What Calico finds peers by instead of an address. No session would come of it.
const OTHER_WAYS: [&str; 2] = ["peerSelector", "localWorkloadSelector"];

/// Checks a BGPPeer.
pub fn bgp_peer(peer: &BgpPeer) -> Result<(), Invalid> {
    let mut check = Check::default();
    check.object_name(&peer.metadata);
    let spec = &peer.spec;
    address(&mut check, spec);
    which_nodes(&mut check, spec);
    check.as_number("spec.asNumber", spec.as_number, "name the peer's");
    check.as_number(
        "spec.localASNumber",
        spec.local_as_number,
        "leave it out for the node's own",
    );
    if let Some(source) = &spec.source_address {
        check.one_of("spec.sourceAddress", source, &["UseNodeIP", "None"]);
    }
    check.seconds(
        "spec.maxRestartTime",
        spec.max_restart_time.as_deref(),
        &RESTART_SECONDS,
    );
    check.seconds(
        "spec.keepaliveTime",
        spec.keepalive_time.as_deref(),
        &KEEPALIVE_SECONDS,
    );
    if spec.ttl_security == Some(0) {
        check.fail(
            "spec.ttlSecurity",
            "no number of hops: 0",
            "write 1 for a peer on the same link",
        );
    }
    check.password("spec.password", spec.password.as_ref());
    check.session_annotations(&peer.metadata);
    check.finish::<BgpPeerSpec>(&peer.metadata)
}

/// Checks a BGPConfiguration.
pub fn bgp_configuration(configuration: &BgpConfiguration) -> Result<(), Invalid> {
    let mut check = Check::default();
    check.object_name(&configuration.metadata);
    let spec = &configuration.spec;
    check.as_number("spec.asNumber", spec.as_number, "leave it out for 64512");
    if spec.listen_port == Some(0) {
        check.fail("spec.listenPort", "no port: 0", "leave it out for 179");
    }
    if let Some(severity) = &spec.log_severity_screen {
        check.one_of("spec.logSeverityScreen", severity, &SEVERITIES);
    }
    check.password("spec.nodeMeshPassword", spec.node_mesh_password.as_ref());
    check.session_annotations(&configuration.metadata);
    check.finish::<BgpConfigurationSpec>(&configuration.metadata)
}

fn address(check: &mut Check, spec: &BgpPeerSpec) {
    if !spec.peer_ip.is_empty() {
        if let Err(error) = spec.peer_ip.parse::<PeerAddress>() {
            check.told("spec.peerIP", &error.to_string());
        }
        return;
    }
    let other = OTHER_WAYS
        .into_iter()
        .find(|field| spec.extra.contains_key(*field));
    let what = other.map_or_else(
        || "missing".to_owned(),
        |field| format!("missing: peers are not found by {field}"),
    );
    check.fail(
        "spec.peerIP",
        &what,
        "name the peer's address, in a BGPPeer for each",
    );
}

fn which_nodes(check: &mut Check, spec: &BgpPeerSpec) {
    if !spec.node.is_empty() && !spec.node_selector.is_empty() {
        check.fail(
            "spec.nodeSelector",
            "used together with node",
            "leave one of them out, or both for a session on every node",
        );
    }
    if let Err(error) = spec.node_selector.parse::<Selector>() {
        check.fail(
            "spec.nodeSelector",
            &error.to_string(),
            "write it as zone == \"a\" && !has(edge), or all()",
        );
    }
}

impl Check {
    pub(super) fn as_number(&mut self, field: &str, number: Option<u32>, hint: &str) {
        if number == Some(0) {
            self.fail(field, "no AS number: 0", hint);
        }
    }

    fn seconds(&mut self, field: &str, text: Option<&str>, allowed: &RangeInclusive<u16>) {
        if let Some(Err(error)) = text.map(|text| seconds(text, allowed)) {
            self.told(field, &error.to_string());
        }
    }

    fn password(&mut self, field: &str, password: Option<&BgpPassword>) {
        let Some(secret) = password.and_then(|password| password.secret_key_ref.as_ref()) else {
            return;
        };
        if secret.name.is_empty() || secret.key.is_empty() {
            self.fail(
                format!("{field}.secretKeyRef"),
                "names no entry of a secret",
                "give both name and key",
            );
        }
    }

    /// What annotations say about sessions.
    fn session_annotations(&mut self, metadata: &ObjectMeta) {
        let said = |name: &str| metadata.annotations.get(name).map(String::as_str);
        let field = |name: &str| format!("metadata.annotations[{name}]");
        if let Some(bfd) = said(BFD) {
            self.one_of(&field(BFD), bfd, &["true", "false"]);
        }
        self.seconds(&field(BGP_HOLD_TIME), said(BGP_HOLD_TIME), &HOLD_SECONDS);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fields;
    use super::*;
    use crate::v3::SecretKeyRef;

    fn peer(spec: BgpPeerSpec) -> BgpPeer {
        let spec = BgpPeerSpec {
            peer_ip: if spec.peer_ip.is_empty() {
                "192.0.2.1".to_owned()
            } else {
                spec.peer_ip.clone()
            },
            ..spec
        };
        BgpPeer::new(ObjectMeta::named("rack-1"), spec)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn secret(name: &str, key: &str) -> Option<BgpPassword> {
        Some(BgpPassword {
            secret_key_ref: Some(SecretKeyRef {
                name: name.to_owned(),
                key: key.to_owned(),
            }),
            ..BgpPassword::default()
        })
    }

    #[test]
    fn a_peer_with_everything_is_valid() {
        let mut full = peer(BgpPeerSpec {
            node_selector: "rack == \"1\"".to_owned(),
            peer_ip: "[2001:db8::1]:1790".to_owned(),
            as_number: Some(u32::MAX),
            local_as_number: Some(1),
            password: secret("bgp", "rack-1"),
            source_address: some("None"),
            max_restart_time: some("2m"),
            keepalive_time: some("3s"),
            ttl_security: Some(1),
            ..BgpPeerSpec::default()
        });
        full.metadata
            .annotations
            .insert(BFD.to_owned(), "true".to_owned());
        full.metadata
            .annotations
            .insert(BGP_HOLD_TIME.to_owned(), "9s".to_owned());
        assert_eq!(bgp_peer(&full), Ok(()));
        assert_eq!(bgp_peer(&peer(BgpPeerSpec::default())), Ok(()));
    }

    #[test]
    fn everything_that_is_wrong_with_a_peer_is_said() {
        let mut wrong = peer(BgpPeerSpec {
            node: "n1".to_owned(),
            node_selector: "zone = a".to_owned(),
            peer_ip: "router".to_owned(),
            as_number: Some(0),
            local_as_number: Some(0),
            password: secret("bgp", ""),
            source_address: some("10.0.0.1"),
            max_restart_time: some("2h"),
            keepalive_time: some("soon"),
            ttl_security: Some(0),
            ..BgpPeerSpec::default()
        });
        wrong.metadata.name = "Rack".to_owned();
        wrong
            .metadata
            .annotations
            .insert(BFD.to_owned(), "yes".to_owned());
        wrong
            .metadata
            .annotations
            .insert(BGP_HOLD_TIME.to_owned(), "1s".to_owned());
        let expected = [
            "metadata.name",
            "spec.peerIP",
            "spec.nodeSelector",
            "spec.nodeSelector",
            "spec.asNumber",
            "spec.localASNumber",
            "spec.sourceAddress",
            "spec.maxRestartTime",
            "spec.keepaliveTime",
            "spec.ttlSecurity",
            "spec.password.secretKeyRef",
            "metadata.annotations[buoy.dev/bfd]",
            "metadata.annotations[buoy.dev/holdTime]",
        ];
        assert_eq!(fields(bgp_peer(&wrong)), expected);
        let message = bgp_peer(&wrong).unwrap_err().to_string();
        for part in [
            "spec.peerIP: not the address of a peer: \"router\"\nwrite it as 192.0.2.1, ",
            "spec.maxRestartTime: out of range: 2h\nuse 0s to 4095s\n",
            "metadata.annotations[buoy.dev/holdTime]: out of range: 1s\nuse 3s to 65535s",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_peer_without_an_address_is_refused() {
        let mut nobody = BgpPeer::new(ObjectMeta::named("mesh"), BgpPeerSpec::default());
        assert!(
            bgp_peer(&nobody)
                .unwrap_err()
                .to_string()
                .contains("spec.peerIP: missing\nname the peer's address")
        );
        nobody
            .spec
            .extra
            .insert("peerSelector".to_owned(), "all()".into());
        assert!(
            bgp_peer(&nobody)
                .unwrap_err()
                .to_string()
                .contains("spec.peerIP: missing: peers are not found by peerSelector\n")
        );
    }

    #[test]
    fn the_cluster_has_numbers_that_exist() {
        let mut configuration =
            BgpConfiguration::new(ObjectMeta::named("default"), BgpConfigurationSpec::default());
        assert_eq!(bgp_configuration(&configuration), Ok(()));
        configuration.spec = BgpConfigurationSpec {
            node_to_node_mesh_enabled: Some(false),
            as_number: Some(4_200_000_001),
            listen_port: Some(1790),
            node_mesh_password: secret("bgp", "mesh"),
            log_severity_screen: some("Info"),
            ..BgpConfigurationSpec::default()
        };
        assert_eq!(bgp_configuration(&configuration), Ok(()));
        configuration.spec = BgpConfigurationSpec {
            as_number: Some(0),
            listen_port: Some(0),
            node_mesh_password: secret("", "mesh"),
            log_severity_screen: some("loud"),
            ..BgpConfigurationSpec::default()
        };
        configuration
            .metadata
            .annotations
            .insert(BFD.to_owned(), String::new());
        assert_eq!(
            fields(bgp_configuration(&configuration)),
            [
                "spec.asNumber",
                "spec.listenPort",
                "spec.logSeverityScreen",
                "spec.nodeMeshPassword.secretKeyRef",
                "metadata.annotations[buoy.dev/bfd]",
            ]
        );
    }
}
