//! What must have stood for a while before something is done about it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Mono;

/// Since when things stand without a break.
#[derive(Clone, Debug)]
pub struct Ripening<T> {
    since: BTreeMap<T, Mono>,
}

impl<T> Default for Ripening<T> {
    fn default() -> Self {
        Self {
            since: BTreeMap::new(),
        }
    }
}

impl<T: Ord + Clone> Ripening<T> {
    /// Takes in all that stands now, with how long each must; what stood before and is not among it begins anew when it
    /// comes back. Gives what has stood long enough, in order.
    pub fn ripe(&mut self, standing: &BTreeMap<T, Duration>, now: Mono) -> Vec<T> {
        self.since.retain(|thing, _| standing.contains_key(thing));
        let mut ripe = Vec::new();
        for (thing, grace) in standing {
            let since = *self.since.entry(thing.clone()).or_insert(now);
            if now >= since.after(*grace) {
                ripe.push(thing.clone());
            }
        }
        ripe
    }

    /// Nothing is known of the time that passed: everything begins anew.
    pub fn begin_anew(&mut self) {
        self.since.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_long_enough_without_a_break_is_ripe() {
        let at = |second: u64| Mono(Duration::from_secs(second));
        let standing = |things: &[(&'static str, u64)]| {
            let things = things.iter();
            things
                .map(|(thing, grace)| (*thing, Duration::from_secs(*grace)))
                .collect()
        };
        let mut ripening = Ripening::default();
        assert_eq!(ripening.ripe(&standing(&[("a", 10), ("b", 0)]), at(0)), ["b"]);
        assert_eq!(ripening.ripe(&standing(&[("a", 10)]), at(9)), Vec::<&str>::new());
        assert_eq!(ripening.ripe(&standing(&[("a", 10)]), at(10)), ["a"]);
        assert_eq!(ripening.ripe(&standing(&[]), at(11)), Vec::<&str>::new());
        assert_eq!(ripening.ripe(&standing(&[("a", 10)]), at(12)), Vec::<&str>::new());
        ripening.begin_anew();
        assert_eq!(ripening.ripe(&standing(&[("a", 10)]), at(23)), Vec::<&str>::new());
        assert_eq!(ripening.ripe(&standing(&[("a", 10)]), at(33)), ["a"]);
    }
}
