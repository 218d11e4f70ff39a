//! Writes docs/configuration.md from the tables, and tests that it is up to date.

use std::fs;
use std::path::Path;

use super::topic::{DefaultValue, TOPIC_PROPERTIES, TopicProperty};
use super::{BrokerConfig, PROPERTIES, Property, SETTINGS};

const HEAD: &str = "\
# Configuration

`helix-server` without arguments is a useful single node. What can be changed is listed here, all of it: an unknown name
or a value that does not fit is an error that names the nearest valid one.

There are two kinds of names. *Settings* say who a node is and where it listens; each has a flag. *Properties* say how it
behaves, and are given with `--set name=value`, as often as needed. Both can stand in a file (`--config FILE.toml`):

```toml
node-id = 1
data-dir = \"/var/lib/helix\"
num.partitions = 3
\"log.retention.hours\" = 24   # dotted names may be quoted or not
```

Flags win over `--set`, and `--set` wins over the file.

Properties that are *alterable* can also be changed while nodes run, for one broker or for all
(`kafka-configs --alter --entity-type brokers`, with `--entity-name ID` or `--entity-default`). What is altered is kept with
the cluster's metadata and wins over what a node was started with; for one broker wins over for all.

This page is generated from the tables in `helix-server/src/config`; after a change there, run
`HELIX_REWRITE=1 cargo test -p helix-server configuration_page`.
";

const TOPICS_HEAD: &str = "
## Topic configurations

Given when a topic is created, or altered later (`kafka-configs --alter --entity-type topics`); what is altered is in
force on a live topic at once. `kafka-configs --describe` says what is in force and where it comes from.

The default is the broker's, by the name that is given, and so can be set for all topics at once: with `--set` or in the file,
and by altering it for one broker or for all, as Kafka lets it be altered.

";

const HELD_HEAD: &str = "
What these ask for holds with every value, so that any valid one is taken, kept and shown: topics that were made for Kafka
are made here with the same configurations.

";

const FIXED_HEAD: &str = "
Helix shows the following ones, which Kafka has, with the value that describes what Helix does, and takes that value
alone. Another one is refused with `INVALID_CONFIG`, because nothing would act on it.

";

fn table(out: &mut String, head: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    out.push_str(&line(&head));
    out.push_str(&format!("|{}\n", "--|".repeat(head.len())));
    for row in rows {
        out.push_str(&line(&row.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>()));
    }
}

fn valid_values(property: &Property) -> String {
    match &property.range {
        None => property.type_name.to_owned(),
        Some(range) if *range.end() >= i64::MAX / 4 => format!("from {}", range.start()),
        Some(range) => format!("{} to {}", range.start(), range.end()),
    }
}

fn property_row(property: &Property) -> Vec<String> {
    let default = property.show(&BrokerConfig::default());
    vec![
        format!("`{}`", property.name),
        if default == "not set" { default } else { format!("`{default}`") },
        property.unit.to_owned(),
        if property.dynamic { "yes" } else { "no" }.to_owned(),
        valid_values(property),
        property.doc.trim().to_owned(),
    ]
}

fn topic_row(property: &TopicProperty) -> Vec<String> {
    let default = match property.default {
        DefaultValue::Broker(name) => format!("the broker's `{name}`"),
        DefaultValue::Literal { value, brokers } => match brokers.name() {
            Some(name) => format!("`{value}`, or the broker's `{name}`"),
            None => format!("`{value}`"),
        },
    };
    let valid = property.valid.describe(property.kind);
    vec![format!("`{}`", property.name), default, valid, property.doc.to_owned()]
}

fn fixed_row(property: &TopicProperty) -> Vec<String> {
    let only = match property.default {
        DefaultValue::Literal { value: "", .. } => "(empty)".to_owned(),
        DefaultValue::Literal { value, .. } | DefaultValue::Broker(value) => format!("`{value}`"),
    };
    vec![format!("`{}`", property.name), only, property.advice().to_owned()]
}

fn page() -> String {
    let mut out = HEAD.to_owned();
    out.push_str("\n## Settings\n\n");
    table(
        &mut out,
        &["flag", "value", "default", "what it does"],
        SETTINGS.iter().map(|setting| {
            let cells = [&format!("`--{}`", setting.name), setting.value_name, setting.default, setting.doc];
            cells.map(str::to_owned).into()
        }),
    );
    let columns = ["name", "default", "unit", "alterable", "valid values", "what it does"];
    out.push_str("\n## Properties that Kafka has too\n\n");
    let (own, kafka): (Vec<_>, Vec<_>) =
        PROPERTIES.iter().partition(|property| property.name.starts_with("helix."));
    table(&mut out, &columns, kafka.into_iter().map(property_row));
    out.push_str("\n## Helix's own properties\n\n");
    table(&mut out, &columns, own.into_iter().map(property_row));
    out.push_str(TOPICS_HEAD);
    let (fixed, taken): (Vec<_>, Vec<_>) =
        TOPIC_PROPERTIES.iter().partition(|property| !property.advice().is_empty());
    let (held, acted_on): (Vec<_>, Vec<_>) =
        taken.into_iter().partition(|property| !property.holds_because().is_empty());
    table(
        &mut out,
        &["name", "default", "valid values", "what it does"],
        acted_on.into_iter().map(topic_row),
    );
    out.push_str(HELD_HEAD);
    let columns = ["name", "default", "valid values", "what it is for", "why nothing is done for it"];
    table(
        &mut out,
        &columns,
        held.into_iter().map(|property| {
            let mut row = topic_row(property);
            row.push(property.holds_because().to_owned());
            row
        }),
    );
    out.push_str(FIXED_HEAD);
    table(&mut out, &["name", "only value", "what to do instead"], fixed.into_iter().map(fixed_row));
    out
}

#[test]
fn configuration_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = page();
    if std::env::var_os("HELIX_REWRITE").is_some() {
        fs::create_dir_all(path.parent().expect("it has a directory")).expect("docs can be created");
        fs::write(&path, &page).expect("the page can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/configuration.md is stale: run HELIX_REWRITE=1 cargo test -p helix-server configuration_page"
    );
}
