//! Differences that are known, and why they are there. They are data: `explanations.toml`.

use std::ops::RangeInclusive;

use serde::Deserialize;

use super::report::Difference;

/// What stands beside the script.
const EXPLANATIONS: &str = include_str!("explanations.toml");

/// What is to become of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// It stays.
    Deliberate,
    /// Helix is to be like Apache Kafka one day.
    Gap,
}

/// Differences that are known, and why they are there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Explanation {
    /// Name of the API, with `*` for any characters, as in the other patterns.
    pub(super) api: String,
    /// `3`, `3-5`, `3-`; all if left out.
    #[serde(default)]
    versions: Option<String>,
    /// Pattern of the step's name.
    #[serde(default = "anything")]
    pub(super) case: String,
    /// Pattern of the field's path.
    #[serde(default = "anything")]
    pub(super) field: String,
    /// Pattern of what Helix says.
    #[serde(default = "anything")]
    helix: String,
    /// Pattern of what Apache Kafka says.
    #[serde(default = "anything")]
    kafka: String,
    pub(super) kind: Kind,
    pub(super) why: String,
}

fn anything() -> String {
    "*".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Explanations {
    explanation: Vec<Explanation>,
}

/// Reads the explanations.
///
/// # Errors
/// When the data is not what it should be.
pub(super) fn explanations() -> Result<Vec<Explanation>, toml::de::Error> {
    toml::from_str::<Explanations>(EXPLANATIONS).map(|all| all.explanation)
}

impl Explanation {
    /// Whether this says why a difference is there.
    pub(super) fn explains(&self, difference: &Difference) -> bool {
        matches(&self.api, &difference.api)
            && self.versions().is_none_or(|versions| versions.contains(&difference.version))
            && matches(&self.case, &difference.case)
            && matches(&self.field, &difference.field.field)
            && matches(&self.helix, &difference.field.helix)
            && matches(&self.kafka, &difference.field.kafka)
    }

    fn versions(&self) -> Option<RangeInclusive<i16>> {
        let text = self.versions.as_deref()?;
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let last = if last.is_empty() { i16::MAX } else { last.parse().unwrap_or(i16::MIN) };
        Some(first.parse().unwrap_or(i16::MAX)..=last)
    }
}

/// Whether a text is like a pattern in which `*` stands for any characters, also for none.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((front, rest)) => text.strip_prefix(front).is_some_and(|text| {
            let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            starts.into_iter().any(|at| matches(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::diff::FieldDifference;
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text) in [("a", "a"), ("*", ""), ("a*", "abc"), ("*c", "abc"), ("a[*].x*", "a[b].xyz")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*b", "a"), ("*x", "abc"), ("", "a")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn the_data_can_be_read_and_its_versions_too() {
        for one in explanations().unwrap() {
            let versions = one.versions().unwrap_or(0..=0);
            assert!(!versions.is_empty() && !one.why.is_empty(), "{one:?}");
        }
    }

    #[test]
    fn an_explanation_is_for_what_it_names_alone() {
        let explanation: Explanation = toml::from_str(
            "api = 'Fetch'\nversions = '4-6'\ncase = 'a*'\nfield = 'x'\nkafka = '2'\nkind = 'gap'\nwhy = 'because'",
        )
        .unwrap();
        let difference = |api: &str, version, case: &str, field: &str| Difference {
            api: api.into(),
            version,
            case: case.into(),
            field: FieldDifference { field: field.into(), helix: "1".into(), kafka: "2".into() },
        };
        assert!(explanation.explains(&difference("Fetch", 4, "abc", "x")));
        for other in [
            difference("Produce", 4, "abc", "x"),
            difference("Fetch", 7, "abc", "x"),
            difference("Fetch", 3, "abc", "x"),
            difference("Fetch", 4, "b", "x"),
            difference("Fetch", 4, "abc", "y"),
        ] {
            assert!(!explanation.explains(&other), "{other:?}");
        }
    }
}
