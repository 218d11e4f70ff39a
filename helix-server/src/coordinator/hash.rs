//! Which partition of an internal topic something is coordinated by: as Kafka computes it, so that tools that do it themselves are right.

/// The partition for `key` among `partitions`: Java's `String.hashCode` without its sign, modulo their number.
pub(crate) fn partition_of(key: &str, partitions: usize) -> usize {
    let hash =
        key.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) as usize % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::partition_of;

    #[test]
    fn keys_are_where_java_puts_them() {
        // As `String.hashCode` of Java 17 says.
        assert_eq!(partition_of("group", 50), 47);
        assert_eq!(partition_of("", 50), 0);
        assert_eq!(partition_of("polygenelubricants", i32::MAX as usize), 0, "i32::MIN without its sign");
        assert_eq!(partition_of("ä", 1000), 228);
        assert_eq!(partition_of("\u{1f600}", 1 << 31), 1_772_899, "two UTF-16 units");
    }
}
