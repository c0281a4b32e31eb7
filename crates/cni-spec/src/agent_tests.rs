use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::frame;

fn del_request() -> PluginRequest {
    PluginRequest {
        container_id: "c1".into(),
        ifname: "eth0".into(),
        netns_path: None,
        args: "A=b".into(),
        path: "/opt/cni/bin".into(),
        config: json!({"name": "pods"}),
        deadline_ms: 5_000,
    }
}

fn ipam_request() -> PluginRequest {
    PluginRequest {
        netns_path: Some("/run/netns/w".into()),
        ..del_request()
    }
}

fn add_request() -> AddRequest {
    let PluginRequest {
        container_id,
        ifname,
        args,
        path,
        config,
        deadline_ms,
        ..
    } = del_request();
    let delegated = Some(json!({"ips": []}));
    let netns_path = "/run/netns/w".into();
    AddRequest {
        container_id,
        ifname,
        netns_path,
        args,
        path,
        config,
        delegated,
        deadline_ms,
    }
}

#[test]
fn every_request_survives_the_wire() {
    let valid = vec![Attachment {
        container_id: "c1".into(),
        ifname: "eth0".into(),
    }];
    let bodies = [
        Body::Add(add_request()),
        Body::Del(del_request()),
        Body::Check(AddRequest {
            delegated: None,
            ..add_request()
        }),
        Body::Gc {
            network: "pods".into(),
            valid,
        },
        Body::Status,
        Body::IpamAdd(ipam_request()),
        Body::IpamDel(ipam_request()),
        Body::Inspect(Inspect::Plan),
        Body::Inspect(Inspect::Why {
            ip: "2001:db8::7".parse().unwrap(),
        }),
        Body::Inspect(Inspect::NodeStatus),
    ];
    for body in bodies {
        let request = Request::new("test 1", body);
        let bytes = frame::encode(&request).unwrap();
        assert_eq!(decode_request(&bytes[frame::HEADER..], "agent 1"), Ok(request));
    }
}

#[test]
fn responses_have_a_fixed_form() {
    let ok: Response = Ok(json!({"ips": []}));
    let err: Response = Err(CniError::try_again("busy").with_hint("wait"));
    assert_eq!(serde_json::to_value(&ok).unwrap(), json!({"Ok": {"ips": []}}));
    assert_eq!(
        serde_json::to_value(&err).unwrap(),
        json!({"Err": {"code": 11, "msg": "busy", "details": "wait"}})
    );
    for response in [ok, err, Ok(Value::Null)] {
        assert_eq!(
            decode_response(&serde_json::to_vec(&response).unwrap()),
            Ok(response)
        );
    }
    assert_eq!(
        decode_response(b"HTTP/1.1 400").unwrap_err().code,
        ErrorCode::DECODE
    );
}

#[test]
fn another_version_is_told_before_the_body_is_read() {
    let newer = br#"{"protocol": 9, "client": "buoyctl 7.0", "body": {"what_will_come": {}}}"#;
    let error = decode_request(newer, "buoy-agent 0.1.0").unwrap_err();
    assert_eq!(error.code, ErrorCode::INCOMPATIBLE_VERSION);
    assert_eq!(
        error.msg,
        "protocol versions differ: buoyctl 7.0 speaks 9, buoy-agent 0.1.0 speaks 1"
    );
    assert!(
        error
            .details
            .contains("buoy-agent 0.1.0 is the older one; upgrade buoy-agent"),
        "{}",
        error.details
    );
    let older = decode_request(br#"{"protocol": 0}"#, "buoy-agent 0.1.0").unwrap_err();
    assert!(
        older
            .details
            .contains("the client is the older one; upgrade the CNI plugins"),
        "{}",
        older.details
    );
}

#[test]
fn a_spool_record_becomes_the_request_it_stands_for() {
    let del = SpoolRecord::Del(del_request());
    let ipam = SpoolRecord::IpamDel(ipam_request());
    assert_eq!(
        (del.file_name(), ipam.file_name()),
        ("c1-eth0.json".into(), "ipam:c1-eth0.json".into())
    );
    assert_eq!(serde_json::to_value(&del).unwrap()["kind"], "del");
    for record in [del, ipam] {
        let bytes = serde_json::to_vec(&record).unwrap();
        assert_eq!(serde_json::from_slice::<SpoolRecord>(&bytes).unwrap(), record);
    }
    assert_eq!(
        SpoolRecord::Del(del_request()).into_body(),
        Body::Del(del_request())
    );
    assert_eq!(
        SpoolRecord::IpamDel(ipam_request()).into_body(),
        Body::IpamDel(ipam_request())
    );
}

proptest! {
    #[test]
    fn any_bytes_are_refused_with_a_code(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "\\{.{0,40}\\}") {
        for bytes in [&bytes[..], text.as_bytes()] {
            prop_assert_eq!(decode_request(bytes, "agent").unwrap_err().code, ErrorCode::DECODE);
            prop_assert_eq!(decode_response(bytes).unwrap_err().code, ErrorCode::DECODE);
        }
    }
}
