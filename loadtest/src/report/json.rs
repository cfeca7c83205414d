//! The report as JSON.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::Report;

/// Writes it to this file.
pub fn write(report: &Report, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(report).context("The report cannot be encoded")?;
    fs::write(path, text + "\n").with_context(|| format!("{} cannot be written", path.display()))
}
