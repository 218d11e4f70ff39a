//! Topics that the cluster keeps for itself.

/// The topic that holds consumer groups and their offsets, named as in Kafka.
pub(crate) const GROUPS_TOPIC: &str = "__consumer_offsets";

/// Whether clients may not write to a topic, and are told that it is internal.
pub(crate) fn is_internal(topic: &str) -> bool {
    topic == GROUPS_TOPIC
}
