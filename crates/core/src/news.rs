//! What is worth telling the people of a workload: how its requests for floating IPs stand, and what of its annotations
//! asks for nothing.
//!
//! A [`Herald`] remembers what it told last, and tells the difference. It knows nothing of where it is told.

mod limit;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use buoy_api::annotations::{FLOATING_IPS, IP_ADDRS, IP_ADDRS_NO_IPAM, chosen_addresses};
use buoy_api::binding::Epoch;
use buoy_api::ip::FloatingIp;

pub use self::limit::{Left, Limits, Note};
use crate::endpoint::{AddressRequest, Attachment, AttachmentId, EndpointId};
use crate::floating::rights::Refusal;
use crate::floating::standing::{Standing, standing};
use crate::view::View;

/// Longest part of what people wrote that is repeated to them.
const LONGEST_QUOTE: usize = 100;

/// Whom news is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Pod name, or container ID outside Kubernetes.
    pub name: String,
    /// Identity of this incarnation: pod UID, or container ID.
    pub uid: String,
    /// Whether it is a pod.
    pub is_pod: bool,
}

/// One thing worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whom it is about.
    pub about: Workload,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The floating IP fronts this workload.
    Granted(FloatingIp, Epoch),
    /// The floating IP fronts this workload instead of another.
    TakenOver {
        /// The address.
        floating: FloatingIp,
        /// Who had it before.
        from: Other,
        /// Number of the owner.
        epoch: Epoch,
    },
    /// Another workload has the floating IP, and this one waits.
    StandsBy(FloatingIp, Other),
    /// Another workload has the floating IP, which was this one's.
    HandedOver(FloatingIp, Other),
    /// This workload may not have the floating IP.
    Refused(FloatingIp, Refusal),
    /// This workload may not have the floating IP any more.
    Withdrawn(FloatingIp, Refusal),
    /// This workload no longer asks for the floating IP that it had.
    GivenBack(FloatingIp),
    /// A request for a floating IP that is none, as it was written.
    Malformed(String),
    /// Addresses of its own were asked for when it had its addresses already.
    TooLate(&'static str, String),
    /// It was not attached.
    NotAttached(String),
}

/// Another workload of its namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Other {
    /// Its name.
    pub workload: String,
    /// Its node.
    pub node: String,
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on node {}", self.workload, self.node)
    }
}

impl What {
    /// What it is, in a word, as conditions and events have it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Granted(..) => "FloatingIPGranted",
            Self::TakenOver { .. } => "FloatingIPTakenOver",
            Self::StandsBy(..) => "FloatingIPStandby",
            Self::HandedOver(..) => "FloatingIPHandedOver",
            Self::Refused(..) => "FloatingIPRefused",
            Self::Withdrawn(..) => "FloatingIPWithdrawn",
            Self::GivenBack(_) => "FloatingIPGivenBack",
            Self::Malformed(_) => "FloatingIPMalformed",
            Self::TooLate(..) => "FixedIPIgnored",
            Self::NotAttached(_) => "AttachFailed",
        }
    }

    /// How the request for a floating IP stands now, or what became of it, in a word, for those who count; `None` where it
    /// is about something else.
    pub fn change(&self) -> Option<&'static str> {
        Some(match self {
            Self::Granted(..) => "granted",
            Self::TakenOver { .. } => "taken_over",
            Self::StandsBy(..) => "standby",
            Self::HandedOver(..) => "handed_over",
            Self::Refused(..) => "refused",
            Self::Withdrawn(..) => "withdrawn",
            Self::GivenBack(_) => "given_back",
            Self::Malformed(_) | Self::TooLate(..) => "ignored",
            // Whoever counts what the runtime asked has counted it.
            Self::NotAttached(_) => return None,
        })
    }

    /// Whether somebody should look at it.
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::Refused(..)
                | Self::Withdrawn(..)
                | Self::Malformed(_)
                | Self::TooLate(..)
                | Self::NotAttached(_)
        )
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted(floating, epoch) => {
                write!(
                    f,
                    "floating IP {floating} fronts this workload: epoch {}",
                    epoch.0
                )
            }
            Self::TakenOver {
                floating,
                from,
                epoch,
            } => write!(
                f,
                "floating IP {floating} fronts this workload, and {from} no longer: epoch {}",
                epoch.0
            ),
            Self::StandsBy(floating, owner) => {
                write!(f, "stands by for floating IP {floating}, which fronts {owner}")
            }
            Self::HandedOver(floating, owner) => {
                write!(
                    f,
                    "floating IP {floating} fronts {owner} now; this workload stands by"
                )
            }
            Self::Refused(floating, refusal) => write!(f, "floating IP {floating} is refused: {refusal}"),
            Self::Withdrawn(floating, refusal) => {
                write!(f, "floating IP {floating} is taken from this workload: {refusal}")
            }
            Self::GivenBack(floating) => {
                write!(
                    f,
                    "floating IP {floating} is given back: it is not asked for any more"
                )
            }
            Self::Malformed(text) => write!(
                f,
                "annotation {FLOATING_IPS}: not an IP address, so it is passed over: {text}\nwrite it as [\"172.16.1.3\"]"
            ),
            Self::TooLate(annotation, text) => write!(
                f,
                "annotation {annotation} has no effect on a workload that has its addresses: {text}\nmake it anew"
            ),
            Self::NotAttached(why) => write!(f, "not attached to the network: {why}"),
        }
    }
}

/// What was told of an endpoint.
#[derive(Clone, Debug)]
struct Told {
    attachment: AttachmentId,
    standings: BTreeMap<FloatingIp, Standing>,
    complaints: BTreeSet<What>,
}

/// Tells what is new. The same views in the same order give the same news.
#[derive(Clone, Debug, Default)]
pub struct Herald {
    told: BTreeMap<EndpointId, Told>,
}

impl Herald {
    /// What is new about an endpoint.
    pub fn news(&mut self, view: &View, endpoint: &EndpointId) -> Vec<News> {
        let Some(attachment) = view.attachment_of(endpoint) else {
            self.told.remove(endpoint);
            return Vec::new();
        };
        let before = self
            .told
            .remove(endpoint)
            .filter(|told| told.attachment == attachment.id);
        let (standings, complaints) = before.map_or_else(Default::default, |t| (t.standings, t.complaints));
        let (told, mut news) = differences(view, endpoint, standings);
        let complains = complaints_of(view, attachment);
        news.extend(complains.difference(&complaints).cloned());
        self.told.insert(
            endpoint.clone(),
            Told {
                attachment: attachment.id.clone(),
                standings: told,
                complaints: complains,
            },
        );
        about(attachment, news)
    }

    /// What is new about one floating IP that an endpoint asks for, when nothing else of it has changed.
    pub fn news_of(&mut self, view: &View, endpoint: &EndpointId, floating: FloatingIp) -> Vec<News> {
        let current = view.attachment_of(endpoint);
        let told = self.told.get_mut(endpoint);
        let Some((attachment, told)) = current.zip(told).filter(|(a, told)| a.id == told.attachment) else {
            return self.news(view, endpoint);
        };
        let (stands, what) = difference(view, endpoint, floating, told.standings.remove(&floating));
        told.standings.extend(stands.map(|stands| (floating, stands)));
        about(attachment, what)
    }
}

fn about(attachment: &Attachment, news: impl IntoIterator<Item = What>) -> Vec<News> {
    let of = |what| News {
        about: Workload::of(attachment),
        what,
    };
    news.into_iter().map(of).collect()
}

impl Workload {
    /// The workload of an attachment.
    pub fn of(attachment: &Attachment) -> Self {
        Self {
            namespace: attachment.endpoint.namespace.clone(),
            name: attachment.request.workload.clone(),
            uid: attachment.request.uid.clone(),
            is_pod: attachment.request.is_pod(),
        }
    }
}

/// How requests stand now, and what of it was not told.
fn differences(
    view: &View,
    endpoint: &EndpointId,
    mut before: BTreeMap<FloatingIp, Standing>,
) -> (BTreeMap<FloatingIp, Standing>, Vec<What>) {
    let (mut now, mut news) = (BTreeMap::new(), Vec::new());
    for floating in view.asked_by(endpoint) {
        let (stands, what) = difference(view, endpoint, floating, before.remove(&floating));
        now.extend(stands.map(|stands| (floating, stands)));
        news.extend(what);
    }
    news.extend(before.into_iter().filter_map(given_back));
    (now, news)
}

/// How one request stands now, and what of it was not told. What is undecided says nothing, and stands as before.
fn difference(
    view: &View,
    endpoint: &EndpointId,
    floating: FloatingIp,
    stood: Option<Standing>,
) -> (Option<Standing>, Option<What>) {
    let stands = standing(view, endpoint, floating);
    if stands == Standing::Undecided || stood.as_ref() == Some(&stands) {
        return (stood, None);
    }
    let what = change(view, floating, stood.as_ref(), &stands);
    (Some(stands), what)
}

fn given_back((floating, stood): (FloatingIp, Standing)) -> Option<What> {
    (stood == Standing::Owner).then_some(What::GivenBack(floating))
}

fn change(view: &View, floating: FloatingIp, stood: Option<&Standing>, stands: &Standing) -> Option<What> {
    let had = stood == Some(&Standing::Owner);
    match stands {
        Standing::Undecided => None,
        Standing::Owner => {
            let epoch = view.bindings.get(&floating)?.spec.epoch;
            Some(match stood {
                Some(Standing::Standby { node, workload }) => What::TakenOver {
                    floating,
                    from: other(node, workload),
                    epoch,
                },
                _ => What::Granted(floating, epoch),
            })
        }
        Standing::Standby { node, workload } if had => {
            Some(What::HandedOver(floating, other(node, workload)))
        }
        Standing::Standby { node, workload } => Some(What::StandsBy(floating, other(node, workload))),
        Standing::Refused(refusal) if had => Some(What::Withdrawn(floating, refusal.clone())),
        Standing::Refused(refusal) => Some(What::Refused(floating, refusal.clone())),
    }
}

fn other(node: &str, workload: &str) -> Other {
    Other {
        workload: workload.to_owned(),
        node: node.to_owned(),
    }
}

/// What of a running workload's requests asks for nothing.
fn complaints_of(view: &View, attachment: &Attachment) -> BTreeSet<What> {
    let Some(record) = view.record_of(attachment) else {
        return BTreeSet::new();
    };
    let requests = record.spec.ip_nats.iter().map(|nat| &nat.external_ip);
    let malformed = requests.filter(|text| text.parse::<FloatingIp>().is_err());
    let malformed = malformed.map(|text| What::Malformed(quote(text)));
    let asked = [IP_ADDRS, IP_ADDRS_NO_IPAM].into_iter();
    let asked = asked.filter_map(|name| Some((name, record.metadata.annotations.get(name)?)));
    // An empty value is an absent one.
    let asked = asked.filter(|(_, text)| !text.is_empty());
    let late = asked.filter(|(_, text)| !was_asked(attachment, text));
    let late = late.map(|(name, text)| What::TooLate(name, quote(text)));
    malformed.chain(late).collect()
}

/// Whether a workload was created with the addresses that this text names.
fn was_asked(attachment: &Attachment, text: &str) -> bool {
    let Ok(named) = chosen_addresses(text) else {
        return false;
    };
    match &attachment.request.addresses {
        AddressRequest::Automatic { .. } => false,
        AddressRequest::Specific(addresses) | AddressRequest::Given(addresses) => {
            BTreeSet::from_iter(addresses) == BTreeSet::from_iter(&named)
        }
    }
}

/// What people wrote, or its beginning.
fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(LONGEST_QUOTE).collect();
    if quoted.len() < text.len() {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
#[path = "news_tests.rs"]
mod tests;
