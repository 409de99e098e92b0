//! Fetching one file from an `https://` address, by apt's own transport.

use super::acquire;
use crate::fault::Fault;
use crate::host::runner::Cmd;
use anyhow::{Context, Result};
use std::path::Path;

/// Fetches what is at `uri` into a new file at `file`. The caller refuses addresses that nothing proves.
///
/// Neither configuration nor hooks of this machine take part. `agent` is what the server is told to be talking to,
/// instead of the name and version of apt.
pub fn fetch(uri: &str, file: &Path, agent: Option<&str>) -> Result<()> {
    let folder = tempfile::tempdir().context("Making a temporary folder")?;
    let configuration = folder.path().join("apt.conf");
    let mut text =
        "Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\nAPT::Sandbox::User \"root\";\n"
            .to_owned();
    if let Some(agent) = agent {
        text.push_str(&format!(
            "Acquire::http::User-Agent \"{agent}\";\nAcquire::https::User-Agent \"{agent}\";\n"
        ));
    }
    std::fs::write(&configuration, text)?;
    let output = Cmd::new("/usr/lib/apt/apt-helper")
        .env("APT_CONFIG", &configuration)
        .env("LC_ALL", "C.UTF-8")
        .args(["-q", acquire::OPTION, "download-file", uri])
        .arg(file)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let log = String::from_utf8_lossy(&output.stderr);
    Err(match acquire::failures(&log).into_iter().next() {
        Some(failure) => Fault::new(
            failure.trouble.kind(),
            format!("{uri} cannot be fetched: {}", failure.message),
        )
        .into(),
        None => anyhow::anyhow!("{}", acquire::errors(&log)),
    })
}
