//! A decoded answer as a tree of named values, so that any two answers can be compared field by field.
//!
//! The messages of `kafka-protocol` have no reflection, but all of them can be written for debugging; what is written
//! names every field. It is read back here: a new API needs no code of its own to be compared.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

/// Fields that tell the elements of a list apart, the most telling first.
const KEYS: &[&str] = &[
    "name",
    "topic",
    "topic_name",
    "topic_id",
    "partition_index",
    "partition",
    "partition_id",
    "index",
    "group_id",
    "resource_name",
    "api_key",
    "node_id",
    "broker_id",
    "replica_id",
    "last_sequence",
    "group_instance_id",
    "member_id",
    "key",
    "batch_index",
];

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A number, a flag, an id or `null`.
    Plain(String),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Elements in their order.
    List(Vec<Value>),
    /// Named fields in their order.
    Fields(Vec<(String, Value)>),
}

impl Value {
    /// Reads what `{:?}` wrote.
    ///
    /// # Errors
    /// A sentence saying what could not be read.
    pub(super) fn from_debug(text: &str) -> Result<Self, String> {
        let mut reader = Reader { rest: text.chars().peekable() };
        let value = reader.value()?;
        reader.skip_blanks();
        match reader.rest.next() {
            None => Ok(value),
            Some(c) => Err(format!("{c:?} follows a whole value")),
        }
    }

    /// The part at a path such as `topics[orders].partitions[0].error_code`.
    pub(super) fn at(&self, path: &str) -> Option<&Self> {
        if path.is_empty() {
            return Some(self);
        }
        if let Some(behind) = path.strip_prefix('[') {
            let (wanted, rest) = behind.split_once(']')?;
            let Self::List(elements) = self else { return None };
            let found = elements.iter().find(|element| element.key().as_deref() == Some(wanted))?;
            return found.at(rest.trim_start_matches('.'));
        }
        let (name, rest) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
        let Self::Fields(fields) = self else { return None };
        let (_, found) = fields.iter().find(|(field, _)| field == name)?;
        found.at(rest.trim_start_matches('.'))
    }

    /// What tells this element of a list from the others.
    pub(super) fn key(&self) -> Option<String> {
        let Self::Fields(fields) = self else { return None };
        KEYS.iter().find_map(|key| {
            let (_, value) = fields.iter().find(|(name, _)| name == key)?;
            match value {
                Self::Plain(plain) if plain != "null" => Some(plain.clone()),
                Self::Text(text) if !text.is_empty() => Some(text.clone()),
                _ => None,
            }
        })
    }

    /// The number, if it is one.
    pub(super) fn number(&self) -> Option<i64> {
        match self {
            Self::Plain(plain) => plain.parse().ok(),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(plain) => f.write_str(plain),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bytes(bytes) => write!(f, "{} bytes {}", bytes.len(), bytes.escape_ascii()),
            Self::List(elements) => {
                f.write_str("[")?;
                for (number, element) in elements.iter().enumerate() {
                    write!(f, "{}{element}", if number == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Fields(fields) => {
                f.write_str("{")?;
                for (number, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{name}: {value}", if number == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn skip_blanks(&mut self) {
        while self.rest.next_if(|c| c.is_whitespace()).is_some() {}
    }

    fn take(&mut self, wanted: char) -> bool {
        self.skip_blanks();
        self.rest.next_if_eq(&wanted).is_some()
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.take(wanted) {
            Ok(())
        } else {
            Err(format!("{:?} where {wanted:?} was due", self.rest.peek()))
        }
    }

    fn value(&mut self) -> Result<Value, String> {
        self.skip_blanks();
        match self.rest.peek() {
            None => Err("the text ends where a value was due".into()),
            Some('"') => self.quoted().map(|bytes| Value::Text(String::from_utf8_lossy(&bytes).into_owned())),
            Some('[') => self.list(),
            Some('{') => self.fields(),
            Some(_) => self.named(),
        }
    }

    /// A number, a word, `Some(value)`, `Struct { .. }` or `b"bytes"`.
    fn named(&mut self) -> Result<Value, String> {
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(|c| !c.is_whitespace() && !",:()[]{}\"".contains(*c)) {
            word.push(c);
        }
        if word == "b" && self.rest.peek() == Some(&'"') {
            return self.quoted().map(Value::Bytes);
        }
        if self.take('(') {
            let value = self.value()?;
            self.expect(')')?;
            return Ok(value);
        }
        if self.rest.peek() == Some(&'{') {
            return self.fields();
        }
        match word.as_str() {
            "" => Err(format!("{:?} where a value was due", self.rest.peek())),
            "None" => Ok(Value::Plain("null".into())),
            _ => Ok(Value::Plain(word)),
        }
    }

    fn list(&mut self) -> Result<Value, String> {
        self.expect('[')?;
        let mut elements = Vec::new();
        while !self.take(']') {
            elements.push(self.value()?);
            self.take(',');
        }
        Ok(Value::List(elements))
    }

    fn fields(&mut self) -> Result<Value, String> {
        self.expect('{')?;
        let mut fields = Vec::new();
        while !self.take('}') {
            let name = match self.value()? {
                Value::Plain(name) | Value::Text(name) => name,
                other => return Err(format!("{other} where a name was due")),
            };
            self.expect(':')?;
            let value = self.value()?;
            // Always there, and nearly always empty.
            if name != "unknown_tagged_fields" || value != Value::Fields(Vec::new()) {
                fields.push((name, value));
            }
            self.take(',');
        }
        Ok(Value::Fields(fields))
    }

    fn quoted(&mut self) -> Result<Vec<u8>, String> {
        self.expect('"')?;
        let mut out = Vec::new();
        loop {
            match self.rest.next() {
                None => return Err("a text does not end".into()),
                Some('"') => return Ok(out),
                Some('\\') => self.escape(&mut out)?,
                Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        match self.rest.next() {
            Some('n') => out.push(b'\n'),
            Some('r') => out.push(b'\r'),
            Some('t') => out.push(b'\t'),
            Some('0') => out.push(0),
            Some('x') => {
                let digits: String = self.rest.by_ref().take(2).collect();
                out.push(u8::from_str_radix(&digits, 16).map_err(|error| format!("\\x{digits}: {error}"))?);
            }
            Some('u') => {
                let digits: String = self.rest.by_ref().skip(1).take_while(|c| *c != '}').collect();
                let code =
                    u32::from_str_radix(&digits, 16).map_err(|error| format!("\\u{digits}: {error}"))?;
                let c = char::from_u32(code).ok_or_else(|| format!("\\u{digits} is no character"))?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            None => return Err("a text ends with a backslash".into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::metadata_response::{MetadataResponse, MetadataResponseTopic};
    use kafka_protocol::messages::{SyncGroupResponse, TopicName};
    use kafka_protocol::protocol::StrBytes;
    use uuid::Uuid;

    use super::*;

    fn read(value: &impl fmt::Debug) -> Value {
        Value::from_debug(&format!("{value:?}")).unwrap()
    }

    #[test]
    fn fields_are_found_by_their_path() {
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str("a.b"))))
            .with_topic_id(Uuid::from_u128(7));
        let value = read(&MetadataResponse::default().with_topics(vec![topic]));
        assert_eq!(value.at("topics[a.b].error_code").and_then(Value::number), Some(0));
        let id = value.at("topics[a.b].topic_id").unwrap();
        assert_eq!(id, &Value::Plain("00000000-0000-0000-0000-000000000007".into()));
        assert_eq!(value.at("cluster_id"), Some(&Value::Plain("null".into())));
        assert_eq!(value.at("topics[other]"), None);
    }

    #[test]
    fn texts_and_bytes_come_back_as_they_were() {
        let all: Vec<u8> = (0..=255).collect();
        let text = "\"{}[](),:\\ \n\u{7f} ä \u{1f980}";
        let response = SyncGroupResponse::default()
            .with_assignment(Bytes::from(all.clone()))
            .with_protocol_name(Some(StrBytes::from_static_str(text)));
        let value = read(&response);
        assert_eq!(value.at("assignment"), Some(&Value::Bytes(all)));
        assert_eq!(value.at("protocol_name"), Some(&Value::Text(text.into())));
    }

    #[test]
    fn nonsense_is_an_error() {
        for text in ["", "a {", "[1, 2", "\"a", "1 2", "{1}", "\"\\u{110000}\"", "b\"\\xzz\""] {
            assert!(Value::from_debug(text).is_err(), "{text}");
        }
    }
}
