//! Looks at what is there before an ADD, and for a CHECK.

use std::net::IpAddr;

use buoy_cni_spec::{CniError, ErrorCode};
use buoy_core::endpoint::{Attachment, AttachmentId};
use buoy_core::observed::Observed;
use buoy_core::view::View;
use buoy_kernel::link::read_pod_link;
use buoy_kernel::netns::Netns;

/// Whether the name of an attachment's link is free, or another attachment's of the same endpoint.
pub(crate) fn link_is_free(
    view: &View,
    observed: &Observed,
    attachment: &Attachment,
) -> Result<(), CniError> {
    let name = &attachment.request.host_ifname;
    let taken = |whose: String| {
        CniError::generic(format!("link {name} exists and is not this workload's")).with_hint(format!(
            "{whose}; remove it, or run the workload under another name"
        ))
    };
    let Some(link) = observed.links.get(name) else {
        return Ok(());
    };
    let Some(id) = link.attachment() else {
        let alias = link
            .alias
            .as_deref()
            .map_or("it has no alias".to_owned(), |alias| {
                format!("its alias is {alias}")
            });
        return Err(taken(alias));
    };
    match view.attachment(&id) {
        Some(other) if other.endpoint != attachment.endpoint && !other.is_leaving() => {
            Err(taken(format!("it belongs to {}", other.endpoint)))
        }
        _ => Ok(()),
    }
}

/// Whether the inside of a workload's link has its addresses.
pub(crate) fn inside(attachment: &Attachment, netns: Option<&Netns>) -> Result<(), CniError> {
    let Some(netns) = netns else { return Ok(()) };
    let AttachmentId { ifname, .. } = &attachment.id;
    let state = read_pod_link(netns, ifname)
        .map_err(|e| CniError::new(ErrorCode::INVALID_NETNS, format!("look into the namespace: {e}")))?;
    let Some(state) = state else {
        return Err(CniError::generic(format!(
            "the workload has no interface {ifname}"
        )));
    };
    let has = |address: IpAddr| state.addresses.iter().any(|found| found.addr() == address);
    match attachment.own_addresses().find(|address| !has(*address)) {
        Some(missing) => Err(CniError::generic(format!(
            "interface {ifname} lacks its address: {missing}"
        ))),
        None => Ok(()),
    }
}
