//! What must differ between two clusters is made equal: addresses, ids that a broker draws, times. What can be told
//! beyond that stays: whether there is an id, how many replicas, whether an error has a message.

use std::ops::Range;

use uuid::Uuid;

use super::known::Known;
use super::value::Value;

/// Numbers of brokers; negative ones mean "none".
const NODES: &[&str] = &[
    "node_id",
    "leader_id",
    "broker_id",
    "controller_id",
    "replica_nodes",
    "isr_nodes",
    "offline_replicas",
    "preferred_read_replica",
    "replica_id",
];
/// Epochs: both count up, but not from the same number.
const EPOCHS: &[&str] = &["leader_epoch", "partition_leader_epoch", "epoch", "finalized_features_epoch"];
const PRODUCERS: &[&str] = &["producer_id"];
const TIMES: &[&str] = &[
    "timestamp",
    "log_append_time_ms",
    "base_timestamp_ms",
    "max_timestamp_ms",
    "last_timestamp",
    "last_fetch_timestamp",
    "last_caught_up_timestamp",
];
/// Sizes on disk.
const SIZES: &[&str] = &["partition_size", "total_bytes", "usable_bytes"];
/// What the log of the metadata has, and no other; two such logs are not equally long.
const METADATA_MEMBERS: &str = "current_voters";
/// Configurations that say where a node is, and where it stores.
const PLACES: &[&str] = &["advertised.listeners", "listeners", "log.dirs"];
const MESSAGES: &[&str] = &["error_message", "batch_index_error_message", "documentation"];
/// Bytes of a record batch before its records.
const BATCH_HEADER_BYTES: usize = 61;
/// The part of a batch that its length field does not count.
const LENGTH_OVERHEAD_BYTES: usize = 12;
const UUID_CHARACTERS: usize = 36;

/// Makes an answer comparable with another broker's. `sent_ms` are the times that records were given.
pub(super) fn mask(value: Value, known: &Known, sent_ms: &Range<i64>) -> Value {
    Mask { known, sent_ms }.field("", value)
}

struct Mask<'a> {
    known: &'a Known,
    sent_ms: &'a Range<i64>,
}

impl Mask<'_> {
    fn field(&self, name: &str, value: Value) -> Value {
        match value {
            Value::Bytes(bytes) if name == "records" => self.field("", batches(&bytes)),
            Value::Bytes(bytes) => Value::Bytes(bytes),
            Value::List(elements) => {
                Value::List(elements.into_iter().map(|element| self.field(name, element)).collect())
            }
            Value::Fields(fields) => self.fields(fields),
            Value::Plain(_) => self.plain(name, value),
            Value::Text(text) => self.text(name, text),
        }
    }

    fn fields(&self, fields: Vec<(String, Value)>) -> Value {
        let metadata = fields.iter().any(|(name, _)| name == METADATA_MEMBERS);
        let is_place = |value: &Value| matches!(value, Value::Text(text) if PLACES.contains(&text.as_str()));
        let place = fields.iter().any(|(name, value)| name == "name" && is_place(value));
        let masked = |(name, value): (String, Value)| {
            let value = match &value {
                Value::Plain(_) if metadata && name == "high_watermark" && value.number() >= Some(0) => {
                    Value::Plain("<position>".into())
                }
                Value::Text(_) if place && name == "value" => Value::Text("<place>".into()),
                _ => self.field(&name, value),
            };
            (name, value)
        };
        Value::Fields(fields.into_iter().map(masked).collect())
    }

    fn plain(&self, name: &str, value: Value) -> Value {
        let masked = |as_what: &str| Value::Plain(as_what.to_owned());
        if let Some(kept) = self.known.name_of(&value) {
            return masked(&format!("<{kept}>"));
        }
        let Some(number) = value.number() else {
            let is_directory = name == "replica_directory_id" && !is_nil(&value);
            return if is_directory || is_drawn(&value) { masked("<id>") } else { value };
        };
        match name {
            "throttle_time_ms" => masked("<ms>"),
            "port" if number > 0 => masked("<port>"),
            "session_id" if number > 0 => masked("<session>"),
            _ if NODES.contains(&name) && number >= 0 => masked("<node>"),
            _ if EPOCHS.contains(&name) && number >= 0 => masked("<epoch>"),
            _ if PRODUCERS.contains(&name) && number >= 0 => masked("<producer>"),
            "log_end_offset" if number >= 0 => masked("<position>"),
            _ if SIZES.contains(&name) && number > 0 => masked("<bytes>"),
            _ if TIMES.contains(&name) && number > 0 => self.time(number),
            _ => value,
        }
    }

    /// A time that a record was given stays, as its distance from the first; others are the broker's own.
    fn time(&self, ms: i64) -> Value {
        if self.sent_ms.contains(&ms) {
            Value::Plain(format!("<sent + {} ms>", ms - self.sent_ms.start))
        } else {
            Value::Plain("<now>".into())
        }
    }

    fn text(&self, name: &str, text: String) -> Value {
        let masked = |as_what: &str| Value::Text(as_what.to_owned());
        if text.is_empty() {
            return Value::Text(text);
        }
        if MESSAGES.contains(&name) {
            return masked("<message>");
        }
        match name {
            "host" => masked("<host>"),
            "cluster_id" => masked("<cluster>"),
            "log_dir" => masked("<directory>"),
            _ => match self.known.name_of(&Value::Text(text.clone())) {
                Some(kept) => masked(&format!("<{kept}>")),
                None => masked(&without_uuid(&text)),
            },
        }
    }
}

/// Whether it is an id that somebody has drawn: the script's own are of another kind.
fn is_drawn(value: &Value) -> bool {
    matches!(value, Value::Plain(text) if text.parse::<Uuid>().is_ok_and(|id| id.get_version_num() == 4))
}

fn is_nil(value: &Value) -> bool {
    matches!(value, Value::Plain(text) if text.parse::<Uuid>().is_ok_and(|id| id.is_nil()))
}

/// Member ids end with an id that the broker draws.
fn without_uuid(text: &str) -> String {
    let begin = text.len().checked_sub(UUID_CHARACTERS).filter(|at| text.is_char_boundary(*at));
    match begin.map(|at| text.split_at(at)) {
        Some((front, id)) if Uuid::parse_str(id).is_ok() => format!("{front}<uuid>"),
        _ => text.to_owned(),
    }
}

/// The record batches of a fetched partition: their headers as fields, their records as bytes.
fn batches(mut bytes: &[u8]) -> Value {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let Some((batch, rest)) = first_batch(bytes) else {
            out.push(Value::Bytes(bytes.to_vec()));
            break;
        };
        out.push(batch);
        bytes = rest;
    }
    Value::List(out)
}

fn first_batch(bytes: &[u8]) -> Option<(Value, &[u8])> {
    let length = usize::try_from(number(bytes, 8, 4)?).ok()?;
    let (batch, rest) = bytes.split_at_checked(length.checked_add(LENGTH_OVERHEAD_BYTES)?)?;
    let records = batch.get(BATCH_HEADER_BYTES..)?;
    let fields = [
        ("base_offset", 0, 8),
        ("partition_leader_epoch", 12, 4),
        ("magic", 16, 1),
        ("attributes", 21, 2),
        ("last_offset_delta", 23, 4),
        ("base_timestamp_ms", 27, 8),
        ("max_timestamp_ms", 35, 8),
        ("producer_id", 43, 8),
        ("producer_epoch", 51, 2),
        ("base_sequence", 53, 4),
        ("records_count", 57, 4),
    ];
    let mut out = Vec::new();
    for (name, at, width) in fields {
        out.push((name.to_owned(), Value::Plain(number(batch, at, width)?.to_string())));
    }
    out.push(("records".to_owned(), Value::List(vec![Value::Bytes(records.to_vec())])));
    Some((Value::Fields(out), rest))
}

/// A big-endian number with its sign.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<i64> {
    let field = bytes.get(at..at + width)?;
    let negative = field.first().is_some_and(|byte| *byte >= 0x80);
    let start = if negative { -1 } else { 0 };
    Some(field.iter().fold(start, |sum, byte| (sum << 8) | i64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        let mut known = Known::default();
        known.keep("id of orders", Value::Plain("00000000-0000-0000-0000-000000000009".into()));
        mask(Value::from_debug(text).unwrap(), &known, &(1_000..2_000)).to_string()
    }

    #[test]
    fn ids_are_equal_but_none_is_none() {
        assert_eq!(masked("{leader_id: 3, leader_epoch: 0}"), "{leader_id: <node>, leader_epoch: <epoch>}");
        assert_eq!(masked("{leader_id: -1, leader_epoch: -1}"), "{leader_id: -1, leader_epoch: -1}");
        assert_eq!(masked("{isr_nodes: [1, 2]}"), "{isr_nodes: [<node>, <node>]}");
        assert_eq!(masked("{committed_leader_epoch: 5}"), "{committed_leader_epoch: 5}");
        assert_eq!(masked("{error_message: None}"), "{error_message: null}");
        assert_eq!(masked("{error_message: Some(\"no\")}"), "{error_message: \"<message>\"}");
    }

    #[test]
    fn kept_ids_go_by_their_names() {
        assert_eq!(
            masked(
                "{topic_id: 00000000-0000-0000-0000-000000000009, other: 00000000-0000-0000-0000-000000000008}"
            ),
            "{topic_id: <id of orders>, other: 00000000-0000-0000-0000-000000000008}"
        );
        assert_eq!(masked("{id: 70979e03-0000-4ba4-9121-0000bd22a9c0}"), "{id: <id>}");
        assert_eq!(
            masked("{member_id: \"c-00000000-0000-0000-0000-000000000009\"}"),
            "{member_id: \"c-<uuid>\"}"
        );
    }

    #[test]
    fn times_of_records_stay() {
        assert_eq!(masked("{timestamp: 1007}"), "{timestamp: <sent + 7 ms>}");
        assert_eq!(masked("{timestamp: 5000}"), "{timestamp: <now>}");
        assert_eq!(masked("{timestamp: -1}"), "{timestamp: -1}");
    }

    #[test]
    fn sizes_are_equal_but_nothing_is_nothing() {
        assert_eq!(masked("{partition_size: 3}"), "{partition_size: <bytes>}");
        assert_eq!(masked("{partition_size: 0, total_bytes: -1}"), "{partition_size: 0, total_bytes: -1}");
    }

    #[test]
    fn places_are_equal_but_none_is_none() {
        assert_eq!(
            masked(
                "{name: \"log.dirs\", value: Some(\"/data\"), synonyms: [{name: \"log.dirs\", value: None}]}"
            ),
            "{name: \"log.dirs\", value: \"<place>\", synonyms: [{name: \"log.dirs\", value: null}]}"
        );
        assert_eq!(masked("{name: \"other\", value: \"/data\"}"), "{name: \"other\", value: \"/data\"}");
        assert_eq!(
            masked("{replica_directory_id: 00000000-0000-0000-0000-000000000007}"),
            "{replica_directory_id: <id>}"
        );
        let none = "{replica_directory_id: 00000000-0000-0000-0000-000000000000}";
        assert_eq!(masked(none), none);
    }

    #[test]
    fn only_the_log_of_the_metadata_is_not_looked_into() {
        assert_eq!(masked("{high_watermark: 7}"), "{high_watermark: 7}");
        assert_eq!(
            masked("{high_watermark: 7, current_voters: [{log_end_offset: 8}, {log_end_offset: -1}]}"),
            "{high_watermark: <position>, current_voters: [{log_end_offset: <position>}, {log_end_offset: -1}]}"
        );
        assert_eq!(
            masked("{high_watermark: -1, current_voters: []}"),
            "{high_watermark: -1, current_voters: []}"
        );
    }

    #[test]
    fn batches_are_taken_apart() {
        let batch = crate::wire::records(2, 10, 1).unwrap();
        let value = mask(
            Value::Fields(vec![("records".into(), Value::Bytes(batch.to_vec()))]),
            &Known::default(),
            &(0..i64::MAX),
        );
        let Some(Value::List(batches)) = value.at("records") else { panic!("{value}") };
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].at("records_count").and_then(Value::number), Some(2));
        assert_eq!(batches[0].at("producer_id").and_then(Value::number), Some(-1));
    }
}
