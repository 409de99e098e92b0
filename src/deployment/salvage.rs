//! What can be told of a sysroot that libostree refuses to load.
//!
//! One origin file that does not parse makes libostree refuse the whole sysroot. `status` must still say what
//! boots, so this reads the boot entries (Boot Loader Specification) itself and judges each deployment alone.

use crate::boot::kargs::KernelArguments;
use crate::deployment::model::DeploymentState;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use ostree_ext::glib;
use std::path::{Path, PathBuf};

const ENTRIES: &str = "boot/loader/entries";

/// Returns the deployments that the boot entries below `root` name, in boot order, each with its own problems.
///
/// Fails only when the boot entries cannot be listed.
pub fn deployments(root: &Path) -> Result<Vec<DeploymentState>> {
    let sysroot = Dir::open_ambient_dir(root, ambient_authority())
        .with_context(|| format!("Opening {}", root.display()))?;
    let running = running();
    let mut entries = Vec::new();
    for entry in sysroot
        .read_dir(ENTRIES)
        .with_context(|| format!("Listing {ENTRIES}"))?
    {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".conf") {
            continue;
        }
        let text = sysroot
            .read_to_string(Path::new(ENTRIES).join(&name))
            .with_context(|| format!("Reading {ENTRIES}/{name}"))?;
        let version = field(&text, "version")
            .and_then(|value| value.parse::<i64>().ok())
            .unwrap_or(0);
        entries.push((
            version,
            name,
            field(&text, "options").unwrap_or_default().to_owned(),
        ));
    }
    // libostree numbers its entries so that the highest version boots first.
    entries.sort_by(|left, right| right.0.cmp(&left.0).then(left.1.cmp(&right.1)));
    Ok(entries
        .iter()
        .map(|(_, name, options)| read(&sysroot, name, options, running.as_deref()))
        .collect())
}

/// Returns the link to a deployment that the running kernel was started with.
pub fn running() -> Option<String> {
    let line = std::fs::read_to_string("/proc/cmdline").ok()?;
    ostree_argument(&line)
}

fn read(sysroot: &Dir, entry: &str, options: &str, running: Option<&str>) -> DeploymentState {
    let mut arguments = KernelArguments::parse(options);
    arguments.remove_key("ostree");
    let mut state = DeploymentState {
        unlocked: "none".to_owned(),
        kernel_arguments: arguments.words().to_vec(),
        ..DeploymentState::default()
    };
    let Some(link) = ostree_argument(options) else {
        state.checksum = entry.to_owned();
        state
            .problems
            .push(format!("The boot entry {entry} names no deployment"));
        return state;
    };
    state.booted = running == Some(link.as_str());
    let Some((stateroot, checksum, serial, directory)) = resolve(sysroot, &link) else {
        state.checksum = link.clone();
        state.problems.push(format!(
            "The boot entry {entry} names {link}, which is no deployment"
        ));
        return state;
    };
    state.id = format!("{stateroot}-{checksum}.{serial}");
    state.stateroot = stateroot;
    state.checksum = checksum;
    state.serial = serial;
    let origin = directory.with_extension(format!("{serial}.origin"));
    match read_origin(sysroot, &origin) {
        Ok(reference) => state.container_image_reference = reference,
        Err(error) => state.problems.push(format!(
            "The origin file /{} cannot be read ({error:#}); remove it and choose what to follow with `apt-ostree rebase REF`",
            origin.display()
        )),
    }
    state
}

fn read_origin(sysroot: &Dir, path: &Path) -> Result<Option<String>> {
    let text = sysroot.read_to_string(path)?;
    let file = glib::KeyFile::new();
    file.load_from_data(&text, glib::KeyFileFlags::NONE)?;
    Ok(file
        .string("origin", "container-image-reference")
        .ok()
        .map(|value| value.to_string()))
}

/// Follows `/ostree/boot.N/STATEROOT/BOOTCSUM/SERIAL` to a stateroot, a commit, a serial and the deployment's directory
/// without the serial, without leaving the sysroot; nothing where the link leads to no deployment.
pub fn resolve(sysroot: &Dir, link: &str) -> Option<(String, String, i32, PathBuf)> {
    let target = sysroot.read_link(link.trim_start_matches('/')).ok()?;
    let name = target.file_name()?.to_str()?;
    let (checksum, serial) = name.split_once('.')?;
    let stateroot = link.trim_start_matches('/').split('/').nth(2)?.to_owned();
    let directory = PathBuf::from(format!("ostree/deploy/{stateroot}/deploy/{checksum}"));
    Some((stateroot, checksum.to_owned(), serial.parse().ok()?, directory))
}

fn ostree_argument(line: &str) -> Option<String> {
    line.split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("ostree="))
        .map(str::to_owned)
}

fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .map(str::trim)
}
