//! What sessions inside and outside the mesh have in common.

use std::collections::BTreeMap;
use std::net::IpAddr;

use buoy_api::annotations::{BFD, BGP_HOLD_TIME};
use buoy_api::v3::BgpPassword;
use ipnet::IpNet;
use jiff::SignedDuration;

use super::listen_port;
use crate::bird::{Reach, Secret, Session, Side};
use crate::view::View;

/// Shortest hold time of BGP, in seconds.
const SHORTEST_HOLD: u16 = 3;

/// Both ends of a session.
pub(super) struct Ends {
    pub(super) side: Side,
    /// This node's address, with the network that it is on.
    pub(super) own: Option<IpNet>,
    /// Address that is bound.
    pub(super) local: Option<IpAddr>,
    pub(super) local_as: u32,
    pub(super) remote: IpAddr,
    pub(super) remote_port: u16,
    pub(super) remote_as: u32,
}

/// What a record says of its sessions, whichever kind it is of.
pub(super) struct Common<'a> {
    pub(super) metadata: Option<&'a BTreeMap<String, String>>,
    pub(super) password: Option<&'a BgpPassword>,
}

/// A session. Error: why there can be none.
pub(super) fn session(view: &View, ends: &Ends, common: &Common) -> Result<Session, String> {
    let on_link = ends.own.is_some_and(|own| own.contains(&ends.remote));
    let annotation = |key: &str| common.metadata.and_then(|annotations| annotations.get(key));
    let hold = annotation(BGP_HOLD_TIME)
        .map(|text| seconds(BGP_HOLD_TIME, text, SHORTEST_HOLD))
        .transpose()?;
    let bfd = match annotation(BFD).map(String::as_str) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(format!("annotation {BFD}: true or false, not {other:?}")),
    };
    Ok(Session {
        side: ends.side,
        local: ends.local,
        local_port: listen_port(view),
        local_as: ends.local_as,
        remote: ends.remote,
        remote_port: ends.remote_port,
        remote_as: ends.remote_as,
        reach: if on_link { Reach::Direct } else { Reach::Routed },
        ttl_security: false,
        hold,
        keepalive: None,
        restart: None,
        bfd,
        password: common
            .password
            .map(|password| secret(view, password))
            .transpose()?,
    })
}

fn secret(view: &View, password: &BgpPassword) -> Result<Secret, String> {
    let Some(key) = &password.secret_key_ref else {
        return Err("its password names no secret".to_owned());
    };
    let of = format!("password of secret {:?}, key {:?}", key.name, key.key);
    match view.secrets.get(key) {
        Some(Ok(secret)) => Ok(secret.clone()),
        Some(Err(why)) => Err(format!("{of}: {why}")),
        None => Err(format!("{of}: not read yet")),
    }
}

/// A duration of a field or annotation, in seconds.
pub(super) fn seconds(field: &str, text: &str, least: u16) -> Result<u16, String> {
    let wrong = || format!("{field}: a duration such as 9s, of at least {least} seconds, not {text:?}");
    let duration: SignedDuration = text.parse().map_err(|_| wrong())?;
    let whole = u16::try_from(duration.as_secs()).map_err(|_| wrong())?;
    if whole < least { Err(wrong()) } else { Ok(whole) }
}
