//! How often a request names the same thing: every API has its own answer to that, and all of them have to find out without
//! comparing each name with all others.

use std::collections::HashMap;
use std::hash::Hash;

/// What naming a thing means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mention {
    /// It is named once.
    Only,
    /// It is named here for the first time, and later again.
    FirstOfMany,
    /// It was named before.
    Again,
}

impl Mention {
    /// Whether it is not the only one.
    pub(super) fn is_of_many(self) -> bool {
        self != Self::Only
    }
}

/// Tells for each key, in their order, what naming it there means.
pub(super) fn mentions<K: Hash + Eq>(keys: impl IntoIterator<Item = K>) -> Vec<Mention> {
    let firsts = first_mentions(keys);
    let mut found = vec![Mention::Only; firsts.len()];
    for (place, first) in firsts.into_iter().enumerate() {
        if first != place {
            found[first] = Mention::FirstOfMany;
            found[place] = Mention::Again;
        }
    }
    found
}

/// Tells for each key the place in their order at which it is named first.
pub(super) fn first_mentions<K: Hash + Eq>(keys: impl IntoIterator<Item = K>) -> Vec<usize> {
    let mut places = HashMap::new();
    keys.into_iter().enumerate().map(|(place, key)| *places.entry(key).or_insert(place)).collect()
}

#[cfg(test)]
mod tests {
    use super::Mention::{Again, FirstOfMany, Only};
    use super::*;

    #[test]
    fn each_mention_is_told_from_the_others() {
        assert_eq!(mentions(["a", "b", "a", "c", "a"]), [FirstOfMany, Only, Again, Only, Again]);
        assert_eq!(mentions::<&str>([]), []);
        assert_eq!(first_mentions(["a", "b", "a", "c", "b"]), [0, 1, 0, 3, 1]);
        assert!(FirstOfMany.is_of_many() && Again.is_of_many() && !Only.is_of_many());
    }

    #[test]
    fn very_many_names_take_no_time() {
        // Compared with each other these would be 10^12 comparisons, and the test would not end.
        let count = 1_000_000_u32;
        let found = mentions((0..count).chain(0..count));
        assert!(found[..count as usize].iter().all(|mention| *mention == FirstOfMany));
        assert!(found[count as usize..].iter().all(|mention| *mention == Again));
    }
}
