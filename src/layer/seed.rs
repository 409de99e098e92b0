//! The state that maintainer scripts expect below `/var`, which an image does not carry.

use super::packages;
use super::run::Surroundings;
use super::stage::Stage;
use crate::compose::rootfs;
use crate::fault::{Fault, Kind};
use crate::report::Report;
use anyhow::Result;
use fn_error_context::context;
use std::path::Path;

/// Where dpkg's database is in a prepared image.
pub(crate) const DATABASE: &str = "usr/lib/sysimage/dpkg";

/// `systemd-tmpfiles` ends with these when it did everything but single lines.
const PARTLY_DONE: [i32; 2] = [65, 73];

/// Fills `/var` as a boot of the image would, and makes the directories there that the image's packages own.
#[context("Filling /var")]
pub(crate) fn fill_var(stage: &Stage, surroundings: &Surroundings, report: &dyn Report) -> Result<()> {
    let root = stage.dir();
    if !rootfs::is_file(root, Path::new(DATABASE).join("status"))? {
        return Err(Fault::new(
            Kind::Unsupported,
            format!("The image has no dpkg database in /{DATABASE}"),
        )
        .hint("build the image with `apt-ostree container prepare` as its last step")
        .into());
    }
    let cmd = surroundings.sandbox()?.command("systemd-tmpfiles");
    let output = cmd.args(["--create", "--prefix=/var"]).output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        let partly = output
            .status
            .code()
            .is_some_and(|code| PARTLY_DONE.contains(&code));
        if !partly {
            anyhow::bail!("systemd-tmpfiles failed ({}): {words}", output.status);
        }
        report.warning(&format!(
            "The image's tmpfiles.d could not be followed everywhere: {words}"
        ));
    }
    for path in owned_below_var(stage)? {
        if rootfs::look(root, &path)?.is_none() {
            rootfs::make_dir(root, &path, 0o755)?;
        }
    }
    // dpkg and scripts use the old place.
    rootfs::link(root, "var/lib/dpkg", "../../usr/lib/sysimage/dpkg")?;
    Ok(())
}

/// Returns the paths below `/var` that the image's packages own, except what links lead out of it.
fn owned_below_var(stage: &Stage) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for (_, list) in packages::file_lists(stage.base())? {
        for path in list.lines() {
            let Some(path) = path.strip_prefix('/').filter(|path| path.starts_with("var/")) else {
                continue;
            };
            let is_link = ["var/run", "var/lock"].iter().any(|link| {
                path.strip_prefix(link)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            if !is_link && !path.split('/').any(|part| part == "..") {
                paths.push(path.to_owned());
            }
        }
    }
    Ok(paths)
}
