use super::*;

/// Of version 1, with a time of two digits for the year; made by `openssl x509 -req`.
const OLD: &str = "-----BEGIN CERTIFICATE-----
MIIBFTCBvQIUb9tTruidfX2u6ASnpdiF7OT96ywwCgYIKoZIzj0EAwIwDjEMMAoG
A1UEAwwDb2xkMB4XDTI2MTEyNzIxMTYzMloXDTI2MTIyNzIxMTYzMlowDjEMMAoG
A1UEAwwDb2xkMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE14gdvp2gdaNSHmWe
5yvFsx24UfumGFs7PgLACagRnrgiyYiT8XqqMF6pTCvui7tRFzuYQ8SsArU7+82k
gHRCfjAKBggqhkjOPQQDAgNHADBEAiAaRQUobkh2Cf2gdHTn9MIL0g1sCqAOoBmr
VoY//1jMXAIgHkJ5dnQmuYgzv6NpZ0M/RRbhuZ1h9hnfVi+vPlsukG8=
-----END CERTIFICATE-----
";
const OLD_UNTIL: &str = "2026-12-27T21:16:32Z";

/// Of version 3, and beyond 2049; made by `openssl req -x509`.
const FAR: &str = "-----BEGIN CERTIFICATE-----
MIIBcjCCARmgAwIBAgIUMtfnTVoVrkvLbWxuPBLwcv6E+gcwCgYIKoZIzj0EAwIw
DjEMMAoGA1UEAwwDZmFyMCAXDTI2MTEyNzIxMTYxNVoYDzIwODEwODMwMjExNjE1
WjAOMQwwCgYDVQQDDANmYXIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASkQpg+
naU/p4MXydZyGV6fjDAexgiiW9TrRM2wcMuTmfZ6Hqqe3M1Mk0gwJQuPFYEmEotw
teIkI8tT4bmMPEs6o1MwUTAdBgNVHQ4EFgQUdgiduTLMFsPHjAvMS1GN7jJAN8gw
HwYDVR0jBBgwFoAUdgiduTLMFsPHjAvMS1GN7jJAN8gwDwYDVR0TAQH/BAUwAwEB
/zAKBggqhkjOPQQDAgNHADBEAiA+S6ihHnySufcmpwUui4o1zTUmMw13yr2DOozn
nwLM+QIgR2Kv4m/zYZ4Eh5diPMPRUOoMB4ElXW4Ys4NyGLyXgXg=
-----END CERTIFICATE-----
";
const FAR_UNTIL: &str = "2081-08-30T21:16:15Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn a_certificate_is_valid_up_to_the_second_that_it_names() {
    for (pem, until) in [(OLD, at(OLD_UNTIL)), (FAR, at(FAR_UNTIL))] {
        assert_eq!(expired(pem.as_bytes(), until), None);
        let after = until + jiff::SignedDuration::from_secs(1);
        assert_eq!(expired(pem.as_bytes(), after), Some(until));
        let among_others =
            format!("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n{pem}{FAR}");
        assert_eq!(expired(among_others.as_bytes(), after), Some(until));
    }
}

#[test]
fn what_is_no_certificate_says_nothing() {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let late = at("2100-01-01T00:00:00Z");
    for text in [
        "",
        "garbage",
        BEGIN,
        &format!("{BEGIN}{END}"),
        &format!("{BEGIN}\n!\n{END}\n"),
        &format!("{BEGIN}\nAAAA\n{END}\n"),
    ] {
        assert_eq!(expired(text.as_bytes(), late), None, "{text}");
    }
    assert_eq!(expired(b"\xff", late), None);
}
