//! The report in JSON.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::RunReport;

/// Writes the report to this file.
pub fn write(report: &RunReport, path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(report).context("cannot encode the report")?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}
