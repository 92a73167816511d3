//! What commands print: tables for people, JSON for programs.

use std::io::Write;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use super::CliError;
use crate::config::Config;

/// One line on standard output.
pub(super) fn line(text: &str) -> Result<(), CliError> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// A value as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).map_err(|e| CliError::Other(e.to_string()))?;
    line(&text)
}

/// Rows under their headings, or that there are none.
pub(super) fn table(headings: &[&str], rows: Vec<Vec<String>>) -> Result<(), CliError> {
    if rows.is_empty() {
        return line("none");
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(headings).add_rows(rows);
    line(&table.to_string())
}

/// What holds, without secrets.
pub(super) fn config(config: &Config) -> Result<(), CliError> {
    let mut shown = config.clone();
    if shown.database.url.is_some() {
        shown.database.url = Some("(set)".into());
    }
    let text = toml::to_string_pretty(&shown).map_err(|e| CliError::Other(e.to_string()))?;
    line("# the configuration is good; this holds:")?;
    line(&text)
}
