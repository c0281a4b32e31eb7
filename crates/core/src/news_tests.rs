use buoy_api::binding::Binding;

use super::*;
use crate::endpoint::Phase;
use crate::fixtures::{FLOATING, binding, candidate, endpoint, floating, pod, put, record, view};
use crate::store::Value;

/// A herald that has told everything of a view, and the view.
struct Place {
    view: View,
    herald: Herald,
}

impl Place {
    fn new() -> Self {
        let mut view = view();
        view.put_attachment(pod("web-1", 8));
        Self {
            view,
            herald: Herald::default(),
        }
    }

    fn owned_by(&mut self, owner: Option<&Attachment>) -> &mut Self {
        self.put(binding(owner.map(candidate).as_ref()))
    }

    fn put(&mut self, binding: Binding) -> &mut Self {
        put(&mut self.view, Value::Binding(binding));
        self
    }

    fn news(&mut self, name: &str) -> Vec<What> {
        let alone = self.herald.clone();
        let news = self.herald.news(&self.view, &endpoint(name));
        self.is_told_of_an_address_alone(alone, name, &news);
        assert!(news.iter().all(|news| news.about.name == name));
        assert_eq!(self.herald.news(&self.view, &endpoint(name)), [], "told once");
        news.into_iter().map(|news| news.what).collect()
    }
}

impl Place {
    /// Looking at the address alone tells the same of it.
    fn is_told_of_an_address_alone(&self, mut herald: Herald, name: &str, news: &[News]) {
        let of_it = |news: &&News| {
            !matches!(
                news.what,
                What::Malformed(_) | What::TooLate(..) | What::GivenBack(_)
            )
        };
        let told = herald.news_of(&self.view, &endpoint(name), floating(FLOATING));
        assert!(
            told.iter().filter(of_it).eq(news.iter().filter(of_it)),
            "{told:?}, {news:?}"
        );
        assert_eq!(
            herald.news_of(&self.view, &endpoint(name), floating(FLOATING)),
            [],
            "told once"
        );
    }
}

fn web(workload: &str) -> Other {
    other("n1", workload)
}

#[test]
fn a_workload_is_told_how_its_request_stands_whenever_that_changes() {
    let address = floating(FLOATING);
    let mut place = Place::new();
    assert_eq!(place.news("web-0"), [], "nothing is decided");
    let owned = place.owned_by(Some(&pod("web-0", 7)));
    assert_eq!(owned.news("web-0"), [What::Granted(address, Epoch(7))]);
    assert_eq!(owned.news("web-1"), [What::StandsBy(address, web("web-0"))]);
    let moving = place.owned_by(None);
    assert_eq!((moving.news("web-0"), moving.news("web-1")), (vec![], vec![]));
    let mut moved = binding(Some(&candidate(&pod("web-1", 8))));
    moved.spec.epoch = Epoch(9);
    let moved = place.put(moved);
    assert_eq!(moved.news("web-0"), [What::HandedOver(address, web("web-1"))]);
    let taken = What::TakenOver {
        floating: address,
        from: web("web-0"),
        epoch: Epoch(9),
    };
    assert_eq!(
        taken.to_string(),
        "floating IP 172.16.1.3 fronts this workload, and web-0 on node n1 no longer: epoch 9"
    );
    assert_eq!(moved.news("web-1"), [taken]);
}

#[test]
fn a_refusal_is_told_and_so_is_the_loss_of_a_right() {
    let address = floating(FLOATING);
    let mut place = Place::new();
    let refusal = Refusal::HeldBy {
        namespace: "bank".to_owned(),
        until: None,
    };
    let mut foreign = binding(Some(&candidate(&pod("web-9", 9))));
    foreign.spec.namespace = "bank".to_owned();
    let held = place.put(foreign.clone());
    let refused = What::Refused(address, refusal.clone());
    assert!(refused.is_warning());
    assert_eq!(held.news("web-0"), [refused]);
    place.owned_by(Some(&pod("web-0", 7))).news("web-0");
    let lost = place.put(foreign).news("web-0");
    assert_eq!(lost, [What::Withdrawn(address, refusal)]);
}

#[test]
fn what_is_no_longer_asked_for_is_given_back_by_its_owner_alone() {
    let mut place = Place::new();
    place.owned_by(Some(&pod("web-0", 7)));
    assert_eq!((place.news("web-0").len(), place.news("web-1").len()), (1, 1));
    for (name, host) in [("web-0", 7), ("web-1", 8)] {
        put(&mut place.view, Value::Endpoint(record(&pod(name, host), &[])));
    }
    assert_eq!(place.news("web-0"), [What::GivenBack(floating(FLOATING))]);
    assert_eq!(place.news("web-1"), []);
}

#[test]
fn a_request_that_cannot_be_read_is_told_as_it_was_written() {
    let mut place = Place::new();
    let web = pod("web-0", 7);
    let long = "x".repeat(1000);
    for (text, quoted) in [
        ("172.16.1", "172.16.1".to_owned()),
        (&long, "x".repeat(100) + "…"),
    ] {
        put(&mut place.view, Value::Endpoint(record(&web, &[("", text)])));
        assert_eq!(place.news("web-0"), [What::Malformed(quoted)]);
    }
    put(&mut place.view, Value::Endpoint(record(&web, &[])));
    assert_eq!(place.news("web-0"), []);
}

#[test]
fn addresses_that_are_asked_for_too_late_are_told() {
    let mut place = Place::new();
    let mut web = pod("web-0", 7);
    web.request.addresses = AddressRequest::Specific(vec!["10.65.0.7".parse().unwrap()]);
    place.view.put_attachment(web.clone());
    let mut annotated = |text: &str| {
        let mut record = record(&web, &[]);
        let annotations = &mut record.metadata.annotations;
        annotations.insert(IP_ADDRS.to_owned(), text.to_owned());
        put(&mut place.view, Value::Endpoint(record));
        place.news("web-0")
    };
    assert_eq!(annotated(r#"["10.65.0.7"]"#), [], "it was created with it");
    assert_eq!(annotated(""), [], "an empty value is an absent one");
    let late = r#"["10.65.0.8"]"#;
    assert_eq!(annotated(late), [What::TooLate(IP_ADDRS, late.to_owned())]);
    for text in ["?", "10.65.0.7", r#"["10.65.0.7", "10.65.0.7"]"#] {
        assert_eq!(annotated(text), [What::TooLate(IP_ADDRS, text.to_owned())]);
    }
}

#[test]
fn a_new_incarnation_is_told_anew_and_one_that_is_gone_nothing() {
    let mut place = Place::new();
    let mut web = pod("web-0", 7);
    place.owned_by(Some(&web)).news("web-0");
    let again = Attachment {
        id: AttachmentId {
            container: "c-again".to_owned(),
            ..web.id.clone()
        },
        order: 2,
        ..web.clone()
    };
    place.view.put_attachment(again.clone());
    assert_eq!(place.news("web-0"), [What::Granted(floating(FLOATING), Epoch(7))]);
    place.view.remove_attachment(&again.id);
    web.phase = Phase::Removing;
    place.view.put_attachment(web);
    assert_eq!(place.news("web-0"), []);
    assert!(!place.herald.told.contains_key(&endpoint("web-0")));
}
