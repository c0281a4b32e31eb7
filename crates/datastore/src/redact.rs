//! What somebody wrote, as messages show it.

/// A text that may be a URL, without what stands in it for a user and a password: all before its last `@`.
pub(crate) fn redacted(text: &str) -> String {
    let Some((before, host)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    let is_scheme = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric());
    match before.split_once("://") {
        Some((scheme, _)) if is_scheme(scheme) => format!("{scheme}://…@{host}"),
        _ => format!("…@{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_passwords_are_not_shown() {
        for (text, shown) in [
            ("etcd://a:2379", "etcd://a:2379"),
            ("etcds://me:secret@a", "etcds://…@a"),
            ("http://me:sec@ret@a:1", "http://…@a:1"),
            ("me:sec://ret@a", "…@a"),
            ("me:secret@a", "…@a"),
        ] {
            assert_eq!(redacted(text), shown);
        }
    }
}
