//! Names of sections in the configuration's language.

use std::collections::BTreeMap;

use buoy_api::ip::Family;

use super::Section;

/// Characters of a record's name that are kept; the language takes 64 in all.
const KEPT: usize = 48;

/// The symbol of each section, and the section of each symbol. Symbols differ whatever the records are called.
pub fn symbols<'a>(sections: impl IntoIterator<Item = &'a Section>) -> BTreeMap<String, &'a Section> {
    let mut symbols = BTreeMap::new();
    for section in sections {
        let Some(wish) = wish(section) else { continue };
        let mut symbol = wish.clone();
        for number in 2u32.. {
            if !symbols.contains_key(&symbol) {
                break;
            }
            symbol = format!("{wish}_{number}");
        }
        symbols.insert(symbol, section);
    }
    symbols
}

fn wish(section: &Section) -> Option<String> {
    match section {
        Section::Router | Section::Pool(_) | Section::Block(_) => None,
        Section::Mesh(node, Family::V4) => Some(format!("mesh4_{}", plain(node))),
        Section::Mesh(node, Family::V6) => Some(format!("mesh6_{}", plain(node))),
        Section::Peer(name) => Some(format!("peer_{}", plain(name))),
    }
}

/// A name with nothing but what a symbol may have. Names of Kubernetes stay apart: a dash and a dot differ.
fn plain(name: &str) -> String {
    let mut symbol = String::new();
    for c in name.chars() {
        match c {
            '.' => symbol.push_str("__"),
            c if c.is_ascii_alphanumeric() => symbol.push(c),
            _ => symbol.push('_'),
        }
    }
    symbol.truncate(KEPT);
    symbol
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(peers: &[&str]) -> Vec<String> {
        let sections: Vec<Section> = peers
            .iter()
            .map(|name| Section::Peer((*name).to_owned()))
            .collect();
        symbols(&sections).into_keys().collect()
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_the_text() {
        assert_eq!(
            names(&["n1; }\nprotocol static { route 0.0.0.0/0 blackhole; } #"]),
            ["peer_n1____protocol_static___route_0__0__0__0_0_black"]
        );
        assert_eq!(names(&["é\"'"]), ["peer____"]);
        assert_eq!(names(&[""]), ["peer_"]);
    }

    #[test]
    fn names_that_look_alike_stay_apart() {
        assert_eq!(names(&["a-b", "a.b"]), ["peer_a__b", "peer_a_b"]);
        assert_eq!(
            names(&["a!b", "a?b", "a_b"]),
            ["peer_a_b", "peer_a_b_2", "peer_a_b_3"]
        );
        let long = ["x".repeat(60), format!("{}y", "x".repeat(60))];
        let named = names(&[&long[0], &long[1]]);
        assert_eq!(named.len(), 2);
        assert!(named.iter().all(|name| name.len() <= 64));
    }
}
