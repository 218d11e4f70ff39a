//! Kafka's types of configurations: how a text is read as one, and what Kafka says when it is none.

use std::fmt;

/// The type of a configuration, as Kafka's admin APIs tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigKind {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// A number of 32 bits.
    Int,
    /// A number of 16 bits.
    Short,
    /// A number of 64 bits.
    Long,
    /// A floating-point number.
    Double,
    /// Words, separated by commas.
    List,
}

impl ConfigKind {
    /// The number by which DescribeConfigs tells it (KIP-569).
    pub fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
        }
    }

    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Short => "SHORT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
        }
    }
}

/// Which values of its type a configuration can have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Valid {
    /// All.
    Any,
    /// Numbers from this one on.
    AtLeast(i64),
    /// Numbers from one to the other.
    Between(i64, i64),
    /// Numbers from the first to the second, or the third.
    BetweenOr(i64, i64, i64),
    /// One of these words; of a list, each.
    Words(&'static [&'static str]),
}

/// A value that was read.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    /// Of [`ConfigKind::Boolean`].
    Boolean(bool),
    /// Of [`ConfigKind::Short`], [`ConfigKind::Int`] or [`ConfigKind::Long`].
    Number(i64),
    /// Of [`ConfigKind::Double`].
    Double(f64),
    /// Of [`ConfigKind::String`].
    Text(String),
    /// Of [`ConfigKind::List`].
    List(Vec<String>),
}

impl fmt::Display for Parsed {
    /// As Kafka shows it, however it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Double(value) => write!(f, "{value:?}"),
            Self::Text(value) => f.write_str(value),
            Self::List(words) => f.write_str(&words.join(",")),
        }
    }
}

/// Reads a value, and refuses it in Kafka's words: what follows "Invalid value ... for configuration ...:".
///
/// # Errors
/// When it is not of that type, or not valid.
pub fn parse(kind: ConfigKind, valid: Valid, text: &str) -> Result<Parsed, String> {
    let text = text.trim();
    match kind {
        ConfigKind::Boolean => match () {
            () if text.eq_ignore_ascii_case("true") => Ok(Parsed::Boolean(true)),
            () if text.eq_ignore_ascii_case("false") => Ok(Parsed::Boolean(false)),
            () => Err("Expected value to be either true or false".to_owned()),
        },
        ConfigKind::Int => number(text.parse::<i32>().map(i64::from), kind, valid),
        ConfigKind::Short => number(text.parse::<i16>().map(i64::from), kind, valid),
        ConfigKind::Long => number(text.parse(), kind, valid),
        ConfigKind::Double => fraction(text, valid),
        ConfigKind::String => word(text, valid).map(|()| Parsed::Text(text.to_owned())),
        ConfigKind::List => {
            let words = list(text);
            words.iter().try_for_each(|one| word(one, valid))?;
            Ok(Parsed::List(words))
        }
    }
}

/// The words of a list; an empty text is an empty list.
pub fn list(text: &str) -> Vec<String> {
    let words = text.trim().split(',').map(str::trim);
    if text.trim().is_empty() { Vec::new() } else { words.map(str::to_owned).collect() }
}

fn not_a_number(kind: ConfigKind) -> String {
    format!("Not a number of type {}", kind.name())
}

fn number(
    parsed: Result<i64, std::num::ParseIntError>,
    kind: ConfigKind,
    valid: Valid,
) -> Result<Parsed, String> {
    let number = parsed.map_err(|_| not_a_number(kind))?;
    match valid {
        Valid::AtLeast(least) | Valid::Between(least, _) if number < least => {
            Err(format!("Value must be at least {least}"))
        }
        Valid::Between(_, most) if number > most => Err(format!("Value must be no more than {most}")),
        Valid::BetweenOr(least, most, or) if number != or && !(least..=most).contains(&number) => {
            Err(format!("Value must be between {least} and {most} or equal to {or}"))
        }
        _ => Ok(Parsed::Number(number)),
    }
}

fn fraction(text: &str, valid: Valid) -> Result<Parsed, String> {
    let number: f64 = text.parse().map_err(|_| not_a_number(ConfigKind::Double))?;
    match valid {
        Valid::Between(least, _) if number.is_nan() || number < least as f64 => {
            Err(format!("Value must be at least {least}"))
        }
        Valid::Between(_, most) if number > most as f64 => Err(format!("Value must be no more than {most}")),
        _ => Ok(Parsed::Double(number)),
    }
}

fn word(text: &str, valid: Valid) -> Result<(), String> {
    match valid {
        Valid::Words(words) if !words.contains(&text) => {
            Err(format!("String must be one of: {}", words.join(", ")))
        }
        _ => Ok(()),
    }
}

impl Valid {
    /// The valid values in words, for the documentation.
    pub fn describe(self, kind: ConfigKind) -> String {
        match (self, kind) {
            (Self::AtLeast(least), _) => format!("integer, from {least}"),
            (Self::Between(least, most), ConfigKind::Double) => format!("a number, {least} to {most}"),
            (Self::Between(least, most), _) => format!("integer, {least} to {most}"),
            (Self::BetweenOr(least, most, or), _) => format!("integer, {least} to {most}, or {or}"),
            (Self::Words(words), _) => {
                words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
            }
            (Self::Any, ConfigKind::Boolean) => "`true` or `false`".to_owned(),
            (Self::Any, ConfigKind::List) => "a list".to_owned(),
            (Self::Any, ConfigKind::Double) => "a number".to_owned(),
            (Self::Any, _) => kind.name().to_ascii_lowercase(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_refused_in_kafkas_words() {
        let refusal = |kind, valid, text| parse(kind, valid, text).expect_err("refused");
        assert_eq!(refusal(ConfigKind::Long, Valid::Any, "abc"), "Not a number of type LONG");
        assert_eq!(refusal(ConfigKind::Int, Valid::Any, "2147483648"), "Not a number of type INT");
        assert_eq!(refusal(ConfigKind::Long, Valid::AtLeast(-1), "-5"), "Value must be at least -1");
        let ratio = |text| refusal(ConfigKind::Double, Valid::Between(0, 1), text);
        assert_eq!(ratio("-0.1"), "Value must be at least 0");
        assert_eq!(ratio("NaN"), "Value must be at least 0");
        assert_eq!(ratio("1.1"), "Value must be no more than 1");
        assert_eq!(ratio("half"), "Not a number of type DOUBLE");
        assert_eq!(refusal(ConfigKind::Int, Valid::Between(1, 9), "10"), "Value must be no more than 9");
        assert_eq!(
            refusal(ConfigKind::Boolean, Valid::Any, "maybe"),
            "Expected value to be either true or false"
        );
        let words = Valid::Words(&["compact", "delete"]);
        assert_eq!(refusal(ConfigKind::List, words, "delete,foo"), "String must be one of: compact, delete");
        assert_eq!(refusal(ConfigKind::String, words, "Delete"), "String must be one of: compact, delete");
    }

    #[test]
    fn values_are_shown_in_one_way_however_they_were_written() {
        let shown = |kind, text| parse(kind, Valid::Any, text).expect("valid").to_string();
        assert_eq!(shown(ConfigKind::Boolean, "TRUE"), "true");
        assert_eq!(shown(ConfigKind::Long, " +05 "), "5");
        assert_eq!(shown(ConfigKind::Double, "1"), "1.0");
        assert_eq!(shown(ConfigKind::Double, ".25"), "0.25");
        assert_eq!(shown(ConfigKind::List, "delete , compact"), "delete,compact");
    }

    #[test]
    fn white_space_around_a_value_is_no_part_of_it() {
        assert_eq!(parse(ConfigKind::Long, Valid::Any, " 5 "), Ok(Parsed::Number(5)));
        assert_eq!(parse(ConfigKind::Boolean, Valid::Any, " TRUE"), Ok(Parsed::Boolean(true)));
        assert_eq!(parse(ConfigKind::List, Valid::Any, " "), Ok(Parsed::List(Vec::new())));
        let words = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(parse(ConfigKind::List, Valid::Any, "a , b"), Ok(Parsed::List(words)));
    }
}
