//! What an image must be before a byte of its layers moves, and what its merged tree must hold.

use super::object::ObjectStore;
use super::reference::ImageReference;
use crate::fault::{Fault, Kind};
use crate::tree::Directory;
use anyhow::Result;
use oci_spec::image::{ImageConfiguration, ImageManifest};

/// Labels that say: this image is meant to boot.
const BOOTABLE_LABELS: &[&str] = &["containers.bootc", "ostree.bootable"];
const MODULES: &str = "usr/lib/modules";

/// Checks that manifest and configuration describe a container image for this machine.
///
/// Fails with a fault that names the image and what is wrong with it.
pub(super) fn check_image(
    reference: &ImageReference,
    manifest: &ImageManifest,
    config: &ImageConfiguration,
) -> Result<()> {
    let layers = manifest.layers().len();
    let diff_ids = config.rootfs().diff_ids().len();
    if layers != diff_ids {
        return Err(Fault::new(
            Kind::Invalid,
            format!("{reference} lists {layers} layers, and its configuration lists {diff_ids}"),
        )
        .hint("an artifact that is no container image looks like this as well")
        .into());
    }
    for layer in manifest.layers() {
        let media_type = layer.media_type().to_string();
        let bare = media_type.split('+').next().unwrap_or_default();
        let is_layer =
            bare.ends_with(".tar") || bare.ends_with(".tar.gzip") || bare.ends_with(".diff.tar.zstd");
        if !is_layer || media_type.ends_with("encrypted") {
            return Err(Fault::new(
                Kind::Unsupported,
                format!(
                    "The layer {} of {reference} has the media type `{media_type}`",
                    layer.digest()
                ),
            )
            .hint("layers are tar archives, plain or compressed by gzip or zstd")
            .into());
        }
    }
    let (wanted, offered) = (machine_architecture(), config.architecture().to_string());
    // A configuration written by hand may leave the architecture empty.
    if offered != wanted && !offered.is_empty() {
        return Err(Fault::new(
            Kind::Unsupported,
            format!("{reference} is for the architecture {offered}, and this machine is {wanted}"),
        )
        .hint(format!("build the image with `podman build --arch={wanted}`"))
        .into());
    }
    let system = config.os().to_string();
    if system != "linux" && !system.is_empty() {
        return Err(Fault::new(
            Kind::Unsupported,
            format!("{reference} is for the operating system {system}"),
        )
        .into());
    }
    Ok(())
}

/// Checks that the image says it is meant to boot.
pub(super) fn check_bootable(reference: &ImageReference, config: &ImageConfiguration) -> Result<()> {
    let labels = config.labels_of_config();
    let is_bootable = labels.is_some_and(|labels| {
        BOOTABLE_LABELS.iter().any(|label| {
            labels
                .get(*label)
                .is_some_and(|value| !matches!(value.as_str(), "0" | "false" | ""))
        })
    });
    if is_bootable {
        return Ok(());
    }
    Err(Fault::new(
        Kind::Unsupported,
        format!("{reference} is not a bootable image: it has neither the label `containers.bootc` nor `ostree.bootable`"),
    )
    .hint("run `apt-ostree container prepare` in its Containerfile and add `LABEL containers.bootc=1`")
    .into())
}

/// Checks that no layer has `/usr/etc` where the image has `/etc`: in the tree the two are one.
pub(super) fn check_etc(reference: &ImageReference, has_etc: bool, has_usr_etc: bool) -> Result<()> {
    if !(has_etc && has_usr_etc) {
        return Ok(());
    }
    Err(
        Fault::new(Kind::Invalid, format!("{reference} holds both /etc and /usr/etc"))
            .hint("an image keeps its configuration in /etc; remove /usr/etc in its Containerfile")
            .into(),
    )
}

/// Checks that the merged tree holds exactly one kernel.
pub(super) fn check_kernel(
    reference: &ImageReference,
    root: &mut Directory,
    store: &ObjectStore,
) -> Result<()> {
    let mut kernels = Vec::new();
    if let Some(modules) = root.find_directory(store, MODULES)? {
        for (version, directory) in &mut modules.entries(store)?.directories {
            if directory.entries(store)?.files.contains_key("vmlinuz") {
                kernels.push(version.to_string());
            }
        }
    }
    let problem = match kernels.as_slice() {
        [_] => return Ok(()),
        [] => format!("{reference} holds no kernel: no directory of /{MODULES} has a vmlinuz"),
        several => format!(
            "{reference} holds {} kernels: {}",
            several.len(),
            several.join(", ")
        ),
    };
    Err(Fault::new(Kind::Unsupported, problem)
        .hint(
            "a bootable image has one kernel; `apt-ostree container lint` checks an image while it is built",
        )
        .into())
}

/// Returns the name that OCI has for this machine's architecture.
fn machine_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}
