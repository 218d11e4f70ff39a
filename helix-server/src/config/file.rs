//! The configuration file: TOML with flat (`"num.partitions" = 3`) or dotted keys (`num.partitions = 3`).

use std::fs;
use std::path::Path;

use super::{ConfigError, Given, Source};

pub(super) fn read(path: &Path) -> Result<Vec<Given>, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ConfigError::FileUnreadable { path: path.to_owned(), source })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::FileSyntax {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let mut given = Vec::new();
    flatten("", table, &mut given)?;
    Ok(given)
}

/// Tables are names in parts: `[log.retention]` with `ms` in it is `log.retention.ms`.
fn flatten(prefix: &str, table: toml::Table, given: &mut Vec<Given>) -> Result<(), ConfigError> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        let value = match value {
            toml::Value::Table(inner) => {
                flatten(&name, inner, given)?;
                continue;
            }
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(truth) => truth.to_string(),
            toml::Value::Datetime(_) => return Err(ConfigError::FileType { name, found: "a date" }),
            toml::Value::Array(_) => return Err(ConfigError::FileType { name, found: "a list" }),
        };
        given.push(Given { source: Source::File, name, value });
    }
    Ok(())
}
