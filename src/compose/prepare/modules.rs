//! The index of a kernel's modules, which must know modules that came after the kernel.

use super::{Options, Scope, dracut, rootfs};
use crate::report::Report;
use anyhow::Result;
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;
use std::collections::BTreeSet;
use std::path::Path;

/// Endings of module files, plain and compressed.
const ENDINGS: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];

/// Runs depmod when the modules of `kernel` are not those that its index lists.
#[context("Indexing the modules of {kernel}")]
pub(super) fn index(root: &Dir, options: &Options<'_>, kernel: &str, report: &dyn Report) -> Result<()> {
    let folder = Path::new("usr/lib/modules").join(kernel);
    if let Scope::Layer(layer) = &options.scope {
        if !layer.touches(&folder)? {
            return Ok(());
        }
    }
    let listed = rootfs::read_text(root, folder.join("modules.dep"))?.unwrap_or_default();
    let listed: BTreeSet<&str> = listed.lines().filter_map(|line| line.split(':').next()).collect();
    let mut found = BTreeSet::new();
    rootfs::walk(root, &folder, &mut |path, metadata| {
        let name = path.strip_prefix(&folder)?.to_string_lossy().into_owned();
        if !metadata.is_dir() && ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            found.insert(name);
        }
        Ok(())
    })?;
    let same = found.len() == listed.len() && found.iter().all(|name| listed.contains(name.as_str()));
    if same || !rootfs::is_file(root, folder.join("modules.order"))? {
        // Without that list, which comes with every kernel of Debian, depmod could not tell one kernel from another.
        return Ok(());
    }
    let step = report.step(&format!("Indexing the modules of {kernel}"));
    dracut::inside(&options.path, None, &[], "depmod")?
        .args(["-a", kernel])
        .run()?;
    step.done(&format!("Indexed the modules of {kernel}"));
    Ok(())
}
