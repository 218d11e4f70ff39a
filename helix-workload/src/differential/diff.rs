//! Two answers side by side.

use std::collections::BTreeMap;

use super::value::Value;

/// Longer values are cut.
const SHOWN_CHARACTERS: usize = 120;

/// A field that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldDifference {
    /// Path of the field.
    pub(super) field: String,
    /// What Helix says.
    pub(super) helix: String,
    /// What Apache Kafka says.
    pub(super) kafka: String,
}

/// All fields that are not the same. Elements of lists are matched by what names them; their order does not count.
pub(super) fn compare(helix: &Value, kafka: &Value) -> Vec<FieldDifference> {
    let mut out = Vec::new();
    walk("", Some(helix), Some(kafka), &mut out);
    out
}

fn walk(path: &str, helix: Option<&Value>, kafka: Option<&Value>, out: &mut Vec<FieldDifference>) {
    match (helix, kafka) {
        (Some(Value::Fields(a)), Some(Value::Fields(b))) => {
            let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            for (name, value) in a {
                walk(&join(name), Some(value), find(b, name), out);
            }
            for (name, value) in b.iter().filter(|(name, _)| find(a, name).is_none()) {
                walk(&join(name), None, Some(value), out);
            }
        }
        (Some(Value::List(a)), Some(Value::List(b))) => {
            let (a, b) = (keyed(a), keyed(b));
            for (key, value) in &a {
                walk(&format!("{path}[{key}]"), Some(value), b.get(key).copied(), out);
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                walk(&format!("{path}[{key}]"), None, Some(value), out);
            }
        }
        (a, b) if a == b => {}
        (a, b) => {
            out.push(FieldDifference { field: path.to_owned(), helix: shown(a), kafka: shown(b) });
        }
    }
}

fn find<'a>(fields: &'a [(String, Value)], name: &str) -> Option<&'a Value> {
    fields.iter().find(|(field, _)| field == name).map(|(_, value)| value)
}

/// Elements by name; those without one, or with another's, by number too.
fn keyed(elements: &[Value]) -> BTreeMap<String, &Value> {
    let mut out = BTreeMap::new();
    for (position, element) in elements.iter().enumerate() {
        let key = element.key().unwrap_or_else(|| position.to_string());
        let mut unique = key.clone();
        let mut number = 2;
        while out.contains_key(&unique) {
            unique = format!("{key} #{number}");
            number += 1;
        }
        out.insert(unique, element);
    }
    out
}

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else { return "absent".into() };
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(helix: &str, kafka: &str) -> Vec<String> {
        let read = |text| Value::from_debug(text).unwrap();
        compare(&read(helix), &read(kafka))
            .into_iter()
            .map(|one| format!("{}: {} {}", one.field, one.helix, one.kafka))
            .collect()
    }

    #[test]
    fn order_does_not_count_but_number_does() {
        assert!(
            differences("[{name: 1, x: 2}, {name: 2, x: 3}]", "[{name: 2, x: 3}, {name: 1, x: 2}]")
                .is_empty()
        );
        assert_eq!(differences("[{name: 1}]", "[{name: 1}, {name: 1}]"), ["[1 #2]: absent {name: 1}"]);
    }

    #[test]
    fn every_field_is_told_with_its_path() {
        assert_eq!(
            differences("{a: [{index: 7, b: 1, c: [1]}], d: 5}", "{a: [{index: 7, b: 2, c: []}], d: 5}"),
            ["a[7].b: 1 2", "a[7].c[0]: 1 absent"]
        );
        assert_eq!(differences("{a: 1}", "[1]"), [": {a: 1} [1]"]);
    }
}
