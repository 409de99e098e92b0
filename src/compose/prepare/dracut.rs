//! The initramfs: made by dracut with the ostree module, and made again only when what went into it changed.

use super::{Options, Regenerate, Scope, rootfs};
use crate::compose::initramfs;
use crate::fault::{Fault, Kind};
use crate::host::runner::Cmd;
use crate::host::sandbox::Sandbox;
use crate::report::Report;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::Path;

/// Settings for every run of dracut on this image, ours and anybody else's.
const CONFIGURATION: &str = "\
# Written by apt-ostree container prepare: the initramfs serves every machine that boots the image.
hostonly=\"no\"
reproducible=\"yes\"
compress=\"zstd\"
add_dracutmodules+=\" ostree systemd \"
# Newer releases of dracut set these for hostonly images only, and the ostree module needs them.
systemdsystemunitdir=\"/usr/lib/systemd/system\"
systemdsystemconfdir=\"/etc/systemd/system\"
";

/// Where the digest of the inputs is kept.
const RECORD: &str = "usr/lib/sysimage/apt-ostree/initramfs";

/// Files of the initramfs that change with the image and do not matter before the switch to the real root.
const INDIFFERENT: &[&str] = &[
    "etc/ld.so.cache",
    "etc/passwd",
    "etc/group",
    "etc/shadow",
    "etc/gshadow",
];

/// What goes into every initramfs; packages over an image that touch none of it leave the image's as it is.
const INPUTS: &[&str] = &[
    "usr/lib/dracut",
    "usr/etc/dracut.conf",
    "usr/etc/dracut.conf.d",
    "usr/etc/cmdline.d",
    "usr/etc/crypttab",
    "usr/etc/ostree",
    "usr/lib/ostree",
];

/// Makes the initramfs of `kernel` where it is missing or no longer what it was made from; tells whether it did.
///
/// When packages over an image merely ask for one and the image has no dracut, that is reported and the image's
/// initramfs stays.
pub(super) fn make(root: &Dir, options: &Options<'_>, kernel: &str, report: &dyn Report) -> Result<bool> {
    let none = Regenerate::default();
    let Scope::Layer(layer) = &options.scope else {
        configure(root, &options.path)?;
        return build(root, &options.path, kernel, &none, report);
    };
    let modules = Path::new("usr/lib/modules").join(kernel);
    if let Some(regenerate) = layer.regenerate {
        return build(root, &options.path, kernel, regenerate, report);
    }
    if layer.touches(&modules)? {
        return build(root, &options.path, kernel, &none, report);
    }
    let mut wanted = layer.initramfs_wanted;
    for path in INPUTS {
        wanted |= layer.touches(path)?;
    }
    if wanted && require_dracut(root).is_err() {
        report.warning("A package asks for a new initramfs, and the image has no dracut to make one.");
        return Ok(false);
    }
    if wanted {
        return build(root, &options.path, kernel, &none, report);
    }
    Ok(false)
}

/// Writes the settings that make a bootable initramfs, where the image has none of its own.
fn configure(root: &Dir, path: &Path) -> Result<()> {
    rootfs::write(
        root,
        "usr/lib/dracut/dracut.conf.d/10-apt-ostree.conf",
        CONFIGURATION,
        0o644,
    )?;
    let prepare_root = "ostree/prepare-root.conf";
    if rootfs::is_file(root, Path::new("etc").join(prepare_root))?
        || rootfs::is_file(root, Path::new("usr/lib").join(prepare_root))?
    {
        return Ok(());
    }
    // Asking for composefs where libostree lacks it (Debian 12 and 13) stops the boot.
    let features = if rootfs::is_file(root, "usr/bin/ostree")? {
        inside(path, None, &[], "ostree")?.arg("--version").run_text()?
    } else {
        String::new()
    };
    let composefs = features.lines().any(|line| line.trim() == "- composefs");
    let text = format!(
        "# Written by apt-ostree container prepare.\n[composefs]\nenabled = {}\n\n[sysroot]\nreadonly = true\n",
        if composefs { "yes" } else { "no" }
    );
    rootfs::write(root, Path::new("usr/lib").join(prepare_root), &text, 0o644)?;
    Ok(())
}

/// Makes `/usr/lib/modules/K/initramfs.img` unless the one there was made from the same inputs.
#[context("Making the initramfs of {kernel}")]
fn build(root: &Dir, path: &Path, kernel: &str, how: &Regenerate, report: &dyn Report) -> Result<bool> {
    let image = Path::new("usr/lib/modules").join(kernel).join("initramfs.img");
    let recorded = rootfs::read_text(root, RECORD)?;
    if rootfs::is_file(root, &image)?
        && recorded.is_some()
        && recorded == record(root, kernel, &image, how).ok()
    {
        return Ok(false);
    }
    require_dracut(root)?;
    let step = report.step(&format!("Making the initramfs of {kernel} with dracut"));
    // The old one would be listed among the modules.
    rootfs::remove(root, &image)?;
    // Containers may not set extended attributes.
    let variables = [
        ("DRACUT_NO_XATTR", "1"),
        ("SYSTEMD_OFFLINE", "1"),
        ("LC_ALL", "C.UTF-8"),
    ];
    inside(path, how.etc.as_deref(), &variables, "dracut")?
        .args([
            "--force",
            "--no-hostonly",
            "--reproducible",
            "--zstd",
            "--tmpdir",
            "/var/tmp",
            "--kver",
            kernel,
        ])
        .args(&how.arguments)
        .arg(Path::new("/").join(&image))
        .run()?;
    if !rootfs::is_file(root, &image)? {
        // It does so with success where the kernel's own settings rule an initramfs out.
        return Err(Fault::new(
            Kind::Unsupported,
            format!("dracut made no initramfs for {kernel}"),
        )
        .hint(format!(
            "look for CONFIG_BLK_DEV_INITRD in /usr/lib/modules/{kernel}/config"
        ))
        .into());
    }
    let entries = initramfs::entries(&root.read(&image)?)?;
    if !entries
        .iter()
        .any(|entry| entry.path.ends_with("/ostree-prepare-root"))
    {
        return Err(Fault::new(
            Kind::Invalid,
            format!("The initramfs that dracut made for {kernel} does not hold ostree-prepare-root"),
        )
        .hint("look for omit_dracutmodules in /etc/dracut.conf.d")
        .into());
    }
    rootfs::set_mode(root, &image, 0o644)?;
    rootfs::write(root, RECORD, &record(root, kernel, &image, how)?, 0o644)?;
    step.done(&format!("Made the initramfs of {kernel} with dracut"));
    Ok(true)
}

fn require_dracut(root: &Dir) -> Result<()> {
    let has_module = rootfs::names(root, "usr/lib/dracut/modules.d")?
        .iter()
        .any(|name| {
            name.to_string_lossy()
                .trim_start_matches(|c: char| c.is_ascii_digit())
                == "ostree"
        });
    if rootfs::is_file(root, "usr/bin/dracut")? && has_module {
        return Ok(());
    }
    Err(Fault::new(
        Kind::NotFound,
        "The image has no dracut with the ostree module, which makes the initramfs",
    )
    .hint("run apt-get install dracut ostree-boot in the image")
    .into())
}

/// Returns a command that runs `program` of the root in that root, with more variables in its environment.
///
/// With `etc`, that is what the program sees as `/etc`; it cannot change it.
pub(super) fn inside(
    path: &Path,
    etc: Option<&Path>,
    variables: &[(&str, &str)],
    program: &str,
) -> Result<Cmd> {
    // A container build is what it is: a root of its own, often one in which no other can be entered.
    if path == Path::new("/") {
        return Ok(variables
            .iter()
            .fold(Cmd::new(program), |cmd, (name, value)| cmd.env(name, value)));
    }
    let sandbox = variables
        .iter()
        .fold(Sandbox::new(path)?, |sandbox, (name, value)| {
            sandbox.variable(name, value)
        });
    let sandbox = match etc {
        Some(etc) => sandbox.show(etc, "/etc"),
        None => sandbox,
    };
    Ok(sandbox.command(program))
}

/// Returns the record for an initramfs that stands at `image`: kernel and digest of everything it was made from.
fn record(root: &Dir, kernel: &str, image: &Path, how: &Regenerate) -> Result<String> {
    let mut inputs = Inputs {
        root,
        hash: Sha256::new(),
    };
    let modules = Path::new("usr/lib/modules").join(kernel);
    inputs.file(&modules.join("vmlinuz"))?;
    for folder in ["kernel", "updates", "extra"] {
        inputs.names(&modules.join(folder))?;
    }
    for tree in ["usr/lib/dracut", "etc/dracut.conf.d", "etc/cmdline.d"] {
        inputs.tree(Path::new(tree))?;
    }
    for file in [
        "etc/dracut.conf",
        "etc/crypttab",
        "etc/ostree/prepare-root.conf",
        "usr/lib/ostree/prepare-root.conf",
    ] {
        inputs.file(Path::new(file))?;
    }
    inputs.names(Path::new("usr/lib/firmware"))?;
    for argument in &how.arguments {
        inputs.hash.update(argument);
        inputs.hash.update(b"\0");
    }
    // The image itself is the list of what dracut took; its own content counts too, so that damage is mended.
    inputs.file(image)?;
    let entries = initramfs::entries(&root.read(image)?)?;
    let taken = entries
        .iter()
        .find(|entry| entry.path.ends_with(initramfs::MODULE_LIST));
    inputs.programs(taken.map_or("", |entry| &entry.note))?;
    for entry in entries {
        if entry.is_file() && !INDIFFERENT.contains(&entry.path.as_str()) {
            inputs.file(Path::new(&entry.path))?;
        }
    }
    Ok(format!("{kernel} {}\n", hex::encode(inputs.hash.finalize())))
}

struct Inputs<'a> {
    root: &'a Dir,
    hash: Sha256,
}

impl Inputs<'_> {
    /// Adds the name and content of a regular file; a missing one counts as missing.
    fn file(&mut self, path: &Path) -> Result<()> {
        self.hash.update(path.as_os_str().as_encoded_bytes());
        // A path through an absolute link cannot be followed safely; such files have a twin that is listed too.
        match self.root.symlink_metadata(path) {
            Ok(found) if found.is_file() => {
                let mut content = Sha256::new();
                let mut file = self
                    .root
                    .open(path)
                    .with_context(|| format!("Opening /{}", path.display()))?;
                std::io::copy(&mut file, &mut content)?;
                self.hash.update(content.finalize());
            }
            _ => self.hash.update(b"\0"),
        }
        Ok(())
    }

    /// Adds the content of all files below `path`.
    fn tree(&mut self, path: &Path) -> Result<()> {
        let mut files = Vec::new();
        rootfs::walk(self.root, path, &mut |path, metadata| {
            if metadata.is_file() {
                files.push(path.to_owned());
            }
            Ok(())
        })?;
        files.iter().try_for_each(|file| self.file(file))
    }

    /// Adds the names and sizes of all files below `path`.
    fn names(&mut self, path: &Path) -> Result<()> {
        let hash = &mut self.hash;
        rootfs::walk(self.root, path, &mut |path, metadata| {
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update(metadata.len().to_le_bytes());
            Ok(())
        })
    }

    /// Adds which of the programs and units exist that dracut's modules look for: dracut takes what it finds, so
    /// a newly installed one changes the result although no file of the old initramfs did. `taken` lists the
    /// modules in that one.
    fn programs(&mut self, taken: &str) -> Result<()> {
        let mut words = BTreeSet::new();
        let modules = Path::new("usr/lib/dracut/modules.d");
        for name in rootfs::names(self.root, modules)? {
            let text = rootfs::read_text(self.root, modules.join(&name).join("module-setup.sh"))?;
            let name = name.to_string_lossy();
            let name = name.trim_start_matches(|c: char| c.is_ascii_digit());
            let is_taken = taken.lines().any(|line| line.trim() == name);
            words.extend(sought(&text.unwrap_or_default(), is_taken));
        }
        for folder in [
            "usr/bin",
            "usr/sbin",
            "usr/lib/systemd",
            "usr/lib/systemd/system",
            "usr/lib/udev/rules.d",
        ] {
            for name in rootfs::names(self.root, folder)? {
                if words.contains(&*name.to_string_lossy()) {
                    self.hash.update(name.as_encoded_bytes());
                }
            }
        }
        Ok(())
    }
}

/// Returns the words of a module's script that may name what it takes, or, when dracut left the module out, what
/// it would have needed to be taken.
fn sought(script: &str, is_taken: bool) -> BTreeSet<String> {
    let script = script.replace("\\\n", " ");
    script
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter(|line| is_taken || line.contains("require_binaries") || line.contains("require_any_binary"))
        .flat_map(|line| line.split(|c: char| c.is_whitespace() || "\"'/${}();".contains(c)))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_that_was_left_out_counts_by_what_it_requires() {
        let script = "# needs ssh\ncheck() {\n    require_binaries \\\n        \"$dir\"/one two || return 1\n}\ninst_multiple three\n";
        let left_out = sought(script, false);
        assert!(left_out.contains("one") && left_out.contains("two") && !left_out.contains("three"));
        let taken = sought(script, true);
        assert!(taken.contains("three") && !taken.contains("ssh"));
    }
}
