//! Writes docs/configuration.md from the tables, and tests that it is up to date.

use std::fs;
use std::path::Path;

use super::topic::TOPIC_PROPERTIES;
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

This page is generated from the tables in `helix-server/src/config`; after a change there, run
`HELIX_REWRITE=1 cargo test -p helix-server configuration_page`.
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
        valid_values(property),
        property.doc.trim().to_owned(),
    ]
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
    let columns = ["name", "default", "unit", "valid values", "what it does"];
    out.push_str("\n## Properties that Kafka has too\n\n");
    let (own, kafka): (Vec<_>, Vec<_>) =
        PROPERTIES.iter().partition(|property| property.name.starts_with("helix."));
    table(&mut out, &columns, kafka.into_iter().map(property_row));
    out.push_str("\n## Helix's own properties\n\n");
    table(&mut out, &columns, own.into_iter().map(property_row));
    out.push_str(
        "\n## Topic configurations\n\nGiven when a topic is created. Other names that Kafka knows are refused with \
         `INVALID_CONFIG`, because Helix\nwould not act on them.\n\n",
    );
    table(
        &mut out,
        &["name", "default", "valid values", "what it does"],
        TOPIC_PROPERTIES.iter().map(|property| {
            let cells = [&format!("`{}`", property.name), property.default, property.type_name, property.doc];
            cells.map(str::to_owned).into()
        }),
    );
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
