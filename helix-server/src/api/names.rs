//! Topic names, by Kafka's rules.

use crate::controller::image::MAX_TOPIC_NAME_BYTES;

/// Checks a topic name.
///
/// # Errors
/// A sentence saying what is wrong with it.
pub(crate) fn check(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() {
        Err("topic name is empty".into())
    } else if name == "." || name == ".." {
        Err(format!("topic name cannot be '{name}'"))
    } else if name.len() > MAX_TOPIC_NAME_BYTES {
        Err(format!(
            "topic name is {} characters long, and at most {MAX_TOPIC_NAME_BYTES} are allowed",
            name.len()
        ))
    } else if !name.chars().all(legal) {
        Err(format!("topic name {name:?} has characters other than ASCII letters, digits, '.', '_' and '-'"))
    } else {
        Ok(())
    }
}

/// Whether two names differ in nothing but '.' and '_'.
pub(crate) fn collide(a: &str, b: &str) -> bool {
    let plain = |c: char| if c == '.' { '_' } else { c };
    a.chars().map(plain).eq(b.chars().map(plain))
}

#[cfg(test)]
mod tests {
    use super::{check, collide};

    #[test]
    fn dots_and_underscores_collide() {
        assert!(collide("a.b_c", "a_b.c") && collide("a", "a"));
        assert!(!collide("a.b", "a-b") && !collide("a.b", "a.b.c"));
    }

    #[test]
    fn names_follow_kafkas_rules() {
        for good in ["a", "orders.v1", "A_b-C.9", "...", &"x".repeat(249)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "ä", "a/b", &"x".repeat(250)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
