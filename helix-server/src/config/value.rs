//! Types of values: how they are read, shown and described.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::kind::ConfigKind;
use super::suggest;

/// How a value that is not set is shown.
pub(super) const NOT_SET: &str = "not set";

/// Whose timestamps records keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The time of the append.
    LogAppendTime,
}

/// A value that can be given as text.
pub(super) trait Value: Sized {
    /// What the documentation calls the type.
    const TYPE: &'static str;

    /// What Kafka calls the type.
    const KIND: ConfigKind;

    /// Reads a value, or says what would fit.
    fn read(text: &str, range: Option<&RangeInclusive<i64>>) -> Result<Self, String>;

    /// The value as it would be written.
    fn show(&self) -> String;
}

fn read_integer<T: TryFrom<i64> + std::str::FromStr + Display>(
    text: &str,
    range: Option<&RangeInclusive<i64>>,
) -> Result<T, String> {
    let range = range.expect("every integer property has a range");
    let expected = || format!("it must be a whole number from {} to {}", range.start(), range.end());
    let number: i64 = text.parse().map_err(|_| expected())?;
    if !range.contains(&number) {
        return Err(expected());
    }
    T::try_from(number).map_err(|_| expected())
}

macro_rules! integers {
    ($($type:ty: $kind:ident),+) => {$(
        impl Value for $type {
            const TYPE: &'static str = "integer";
            const KIND: ConfigKind = ConfigKind::$kind;

            fn read(text: &str, range: Option<&RangeInclusive<i64>>) -> Result<Self, String> {
                read_integer(text, range)
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

// As wide as Kafka's property of the same name, not as the type: Kafka counts in signed numbers.
integers!(i16: Int, i32: Int, i64: Long, u32: Int, u64: Long, usize: Int);

impl<T: Value> Value for Option<T> {
    const TYPE: &'static str = T::TYPE;
    const KIND: ConfigKind = T::KIND;

    fn read(text: &str, range: Option<&RangeInclusive<i64>>) -> Result<Self, String> {
        T::read(text, range).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| NOT_SET.to_owned(), T::show)
    }
}

/// Reads one of a few words, whatever their case.
pub(super) fn read_word<T: Copy>(text: &str, words: &[(&'static str, T)]) -> Result<T, String> {
    if let Some((_, value)) = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
        return Ok(*value);
    }
    let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let nearest = suggest::nearest(text, words.iter().map(|(word, _)| *word));
    Err(format!("it must be {}; the nearest is {nearest}", all.join(" or ")))
}

impl Value for bool {
    const TYPE: &'static str = "true or false";
    const KIND: ConfigKind = ConfigKind::Boolean;

    fn read(text: &str, _: Option<&RangeInclusive<i64>>) -> Result<Self, String> {
        read_word(text, &[("true", true), ("false", false)])
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for TimestampType {
    const TYPE: &'static str = "`CreateTime` or `LogAppendTime`";
    const KIND: ConfigKind = ConfigKind::String;

    fn read(text: &str, _: Option<&RangeInclusive<i64>>) -> Result<Self, String> {
        read_word(text, &[("CreateTime", Self::CreateTime), ("LogAppendTime", Self::LogAppendTime)])
    }

    fn show(&self) -> String {
        match self {
            Self::CreateTime => "CreateTime".to_owned(),
            Self::LogAppendTime => "LogAppendTime".to_owned(),
        }
    }
}
