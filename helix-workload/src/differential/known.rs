//! What one broker has told in the course of the script: ids and generations that later requests need.

use std::collections::BTreeMap;

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::value::Value;

/// Something that an earlier answer should have told, and did not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no earlier answer has told {0:?}")]
pub(super) struct Missing(String);

/// What one broker has told.
#[derive(Debug, Default)]
pub(super) struct Known {
    values: BTreeMap<String, Value>,
}

impl Known {
    pub(super) fn keep(&mut self, name: &str, value: Value) {
        self.values.insert(name.to_owned(), value);
    }

    pub(super) fn text(&self, name: &str) -> Result<StrBytes, Missing> {
        match self.values.get(name) {
            Some(Value::Text(text)) => Ok(StrBytes::from_string(text.clone())),
            _ => Err(Missing(name.to_owned())),
        }
    }

    pub(super) fn number<T: TryFrom<i64>>(&self, name: &str) -> Result<T, Missing> {
        let found = self.values.get(name).and_then(Value::number);
        found.and_then(|number| T::try_from(number).ok()).ok_or_else(|| Missing(name.to_owned()))
    }

    pub(super) fn id(&self, name: &str) -> Result<Uuid, Missing> {
        match self.values.get(name) {
            Some(Value::Plain(plain)) => plain.parse().map_err(|_| Missing(name.to_owned())),
            _ => Err(Missing(name.to_owned())),
        }
    }

    /// The name under which an id or a member id was kept.
    pub(super) fn name_of(&self, value: &Value) -> Option<&str> {
        let telling = match value {
            Value::Text(text) => text.len() >= 8,
            Value::Plain(plain) => plain.parse::<Uuid>().is_ok_and(|id| !id.is_nil()),
            _ => false,
        };
        let mut names = self.values.iter().filter(|(_, kept)| telling && *kept == value);
        names.next().map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_told_is_known() {
        let mut known = Known::default();
        known.keep("generation", Value::Plain("3".into()));
        known.keep("member", Value::Text("client-1234".into()));
        assert_eq!(known.number::<i32>("generation"), Ok(3));
        assert_eq!(known.text("member").unwrap().as_str(), "client-1234");
        assert!(known.text("generation").is_err() && known.id("member").is_err());
        assert!(known.number::<i32>("member").is_err());
        // A number says nothing about where it comes from.
        assert_eq!(known.name_of(&Value::Plain("3".into())), None);
        assert_eq!(known.name_of(&Value::Text("client-1234".into())), Some("member"));
    }
}
