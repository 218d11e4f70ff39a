//! What a client may do, where it asks (KIP-430). There is no authorizer: all that exists for a kind of resource.

/// What "not asked for" looks like.
pub(super) const NOT_ASKED: i32 = i32::MIN;

/// Read, write, create, delete, alter, describe, describe and alter configs.
const TOPIC: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// Create, alter, describe, cluster action, describe and alter configs, idempotent write.
const CLUSTER: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);
/// Read, delete, describe, describe and alter configs.
const GROUP: i32 = bits(&[3, 6, 8, 10, 11]);

/// A bit for the number of each operation.
const fn bits(operations: &[u8]) -> i32 {
    let mut out = 0;
    let mut at = 0;
    while at < operations.len() {
        out |= 1 << operations[at];
        at += 1;
    }
    out
}

const fn if_asked(asked: bool, operations: i32) -> i32 {
    if asked { operations } else { NOT_ASKED }
}

pub(super) const fn on_topic(asked: bool) -> i32 {
    if_asked(asked, TOPIC)
}

pub(super) const fn on_cluster(asked: bool) -> i32 {
    if_asked(asked, CLUSTER)
}

pub(super) const fn on_group(asked: bool) -> i32 {
    if_asked(asked, GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_allowed_to_who_asks() {
        // What Apache Kafka 4.1 answers without an authorizer.
        assert_eq!((on_topic(true), on_cluster(true), on_group(true)), (3576, 8096, 3400));
        assert_eq!((on_topic(false), on_cluster(false), on_group(false)), (i32::MIN, i32::MIN, i32::MIN));
    }
}
