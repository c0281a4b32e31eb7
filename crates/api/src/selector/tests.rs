use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Selector {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

#[test]
fn every_operator_does_what_it_says() {
    let own = labels(&[("zone", "rack-1"), ("kubernetes.io/os", "linux"), ("empty", "")]);
    for (text, expected) in [
        ("", true),
        ("  ", true),
        ("all()", true),
        ("global()", true),
        ("all( )", true),
        ("has(zone)", true),
        ("has( empty )", true),
        ("has(nothing)", false),
        ("!has(nothing)", true),
        ("! ! has(nothing)", false),
        ("zone == \"rack-1\"", true),
        ("zone=='rack-1'", true),
        ("zone == 'rack-2'", false),
        ("nothing == ''", false),
        ("empty == ''", true),
        ("zone != 'rack-1'", false),
        ("nothing != 'x'", true),
        ("zone in {'rack-1', \"rack-2\"}", true),
        ("zone in {}", false),
        ("nothing in {'x'}", false),
        ("zone not in {'rack-1'}", false),
        ("nothing not  in {'x'}", true),
        ("zone contains 'ck'", true),
        ("nothing contains ''", false),
        ("zone starts with 'rack'", true),
        ("zone starts\twith 'ack'", false),
        ("zone ends with '-1'", true),
        ("zone ends with 'rack'", false),
        ("kubernetes.io/os == 'linux'", true),
        ("has(zone) && has(nothing)", false),
        ("has(zone) || has(nothing)", true),
        ("has(nothing) && has(nothing) || has(zone)", true),
        ("has(nothing) && (has(nothing) || has(zone))", false),
        ("!(has(nothing) || has(zone))", false),
        ("!zone == 'rack-2'", true),
        ("has == 'x' || in == 'x' || not != 'x'", true),
    ] {
        assert_eq!(parse(text).matches(&own), expected, "{text}");
    }
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (text, position, reason) in [
        (
            "zone",
            1,
            "expected ==, !=, in, not in, contains, starts with or ends with after zone",
        ),
        (
            "zone = 'a'",
            1,
            "expected ==, !=, in, not in, contains, starts with or ends with after zone",
        ),
        (
            "zone starts 'a'",
            1,
            "expected ==, !=, in, not in, contains, starts with or ends with after zone",
        ),
        ("zone == a", 9, "expected a text in quotes"),
        ("zone == 'a", 9, "quote is not closed"),
        ("has(zone", 9, "expected )"),
        ("has()", 5, "expected a label"),
        ("all(x)", 5, "expected )"),
        ("has(a) &&", 10, "expected a label, has(), all(), ! or ("),
        ("has(a) has(b)", 8, "expected && or || or the end"),
        ("has(a))", 7, "expected && or || or the end"),
        ("zone in {'a' 'b'}", 14, "expected , or }"),
        ("zone in 'a'", 9, "expected {"),
        ("!= 'a'", 1, "expected a label, has(), all(), ! or ("),
        ("'ü' == 'a'", 1, "expected a label, has(), all(), ! or ("),
        ("a == 'ü' ?", 10, "expected && or || or the end"),
    ] {
        let error = text.parse::<Selector>().unwrap_err();
        assert_eq!(
            (error.position, error.reason.as_str()),
            (position, reason),
            "{text}"
        );
        assert!(error.to_string().ends_with(text), "{error}");
    }
}

#[test]
fn nesting_has_an_end() {
    let deep = |open: &str, close: &str, n: usize| format!("{}has(a){}", open.repeat(n), close.repeat(n));
    assert_eq!(
        parse(&deep("(", ")", MAX_DEPTH - 1)),
        Selector::Has("a".to_owned())
    );
    for text in [deep("(", ")", 100_000), deep("!", "", 100_000)] {
        let error = text.parse::<Selector>().unwrap_err();
        assert_eq!(error.reason, "nested deeper than 64");
    }
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,3}",
        Just("a.b/c-d_1".to_owned()),
        Just("has".to_owned()),
        Just("in".to_owned())
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z \\\\(){}&|!ü-]{0,4}", "[a-z']{0,4}", "[a-z\"]{0,4}"]
}

fn selectors() -> impl Strategy<Value = Selector> {
    let set = || prop::collection::btree_set(text(), 0..4);
    let leaf = prop_oneof![
        Just(Selector::All),
        Just(Selector::Global),
        label().prop_map(Selector::Has),
        (label(), text()).prop_map(|(label, text)| Selector::Equal(label, text)),
        (label(), text()).prop_map(|(label, text)| Selector::NotEqual(label, text)),
        (label(), set()).prop_map(|(label, set)| Selector::In(label, set)),
        (label(), set()).prop_map(|(label, set)| Selector::NotIn(label, set)),
        (label(), text()).prop_map(|(label, text)| Selector::Contains(label, text)),
        (label(), text()).prop_map(|(label, text)| Selector::StartsWith(label, text)),
        (label(), text()).prop_map(|(label, text)| Selector::EndsWith(label, text)),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Selector::Not(Box::new(inner))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Selector::And),
            prop::collection::vec(inner, 2..4).prop_map(Selector::Or),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(selector in selectors()) {
        prop_assert_eq!(parse(&selector.to_string()), selector);
    }

    #[test]
    fn no_text_panics(text in "[a-z \"'(){}!=&|,ü.-]{0,40}|\\PC{0,40}") {
        if let Err(error) = text.parse::<Selector>() {
            prop_assert!(error.position <= text.chars().count() + 1);
        }
    }
}
