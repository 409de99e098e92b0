//! A new sysroot: repository, stateroot, the first deployment and the boot loader's files.

use super::{Installation, Provisioned};
use crate::boot::kargs::checked;
use crate::boot::loader::{self, BootPlace, Loader};
use crate::deployment::journal::{Ending, Entry, Journal};
use crate::deployment::origin::Origin;
use crate::deployment::staging::{self, NewDeployment};
use crate::deployment::sysroot::{Host, Patience};
use crate::fault::{Fault, Kind};
use crate::host::checkpoint;
use crate::image::pull::{self, PullOptions};
use crate::image::store;
use crate::report::Report;
use anyhow::{Context, Result};
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use cap_std_ext::dirext::CapStdExtDirExt;
use fn_error_context::context;
use ostree_ext::{gio, ostree};
use std::path::{Path, PathBuf};

/// Where a new sysroot will be at boot.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The value of `root=`; without it the kernel arguments name no root.
    pub(super) root: Option<String>,
    /// The file system with `/boot`, where it has a UUID.
    pub(super) boot: Option<BootPlace>,
}

/// A sysroot that was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) provisioned: Provisioned,
    /// The directory of the deployment.
    pub(super) deployment: PathBuf,
}

/// Writes a sysroot into the empty directory `root`.
///
/// Nothing there boots before the boot loader's files are written, at the very end.
#[context("Writing the sysroot {}", root.display())]
pub(super) fn write(
    installation: &Installation,
    root: &Path,
    place: &Place,
    report: &dyn Report,
) -> Result<Written> {
    for word in &installation.kernel_arguments {
        checked(word)?;
    }
    let top = Dir::open_ambient_dir(root, ambient_authority())?;
    top.create_dir_all("boot")?;
    create(installation, root)?;
    let journal = Journal::new(entry(installation));
    let host = Host::open(Some(root), "provision", true)?.journalled(&journal);
    let lock = host.lock("provision", Patience::Fail, report)?;
    let repo = host.repo();
    let options = PullOptions {
        require_bootable: true,
        require_kernel: true,
        ..PullOptions::default()
    };
    let image = pull::pull(&repo, &installation.image, &options, report)?.image;
    follow(&repo, installation, &image.commit)?;
    checkpoint::reach("provision-imported")?;

    let step = report.step("Deploying the image");
    let mut arguments = staging::kernel_arguments(&host, None, &image.commit)?;
    let given = &installation.kernel_arguments;
    for word in place.arguments().iter().chain(given) {
        arguments.push(word);
    }
    staging::publish(
        &lock,
        &NewDeployment {
            stateroot: &installation.stateroot,
            commit: &image.commit,
            origin: &Origin::following(&installation.followed),
            merge: None,
            kernel_arguments: &arguments,
            lock_finalization: false,
        },
        report,
    )?;
    let deployment = deployment_path(&host, root)?;
    let tree = Dir::open_ambient_dir(&deployment, ambient_authority())?;
    if installation.loader == Loader::Grub2 {
        loader::check_ready(&tree)?;
        if place.boot.as_ref().is_some_and(|boot| !boot.own) {
            loader::check_boot_prefix(&tree)?;
        }
    }
    if let Some(boot) = place.boot.as_ref().filter(|boot| boot.own) {
        mount_boot(&tree, boot)?;
    }
    let boot = top.open_dir("boot")?;
    installation.loader.install(&boot, place.boot.as_ref())?;
    step.done("Deployed the image");
    journal.finish(
        Ending::Done,
        &format!("The image {} boots next.", installation.image),
    )?;
    Ok(Written {
        provisioned: Provisioned {
            commit: image.commit,
            manifest_digest: image.manifest_digest,
            followed: installation.followed.clone(),
        },
        deployment,
    })
}

/// Returns what the history of the new host begins with.
fn entry(installation: &Installation) -> Entry {
    let uid = rustix::process::getuid().as_raw();
    Entry {
        verb: "provision".to_owned(),
        title: format!("provision --image {}", installation.image),
        initiator: format!("client(id:cli uid:{uid})"),
        uid,
    }
}

impl Place {
    fn arguments(&self) -> Vec<String> {
        match &self.root {
            None => Vec::new(),
            // libostree's initramfs code makes / read-only by itself where that is wanted.
            Some(root) => vec![format!("root={root}"), "rw".to_owned()],
        }
    }
}

/// Makes the repository and the stateroot.
#[context("Making the repository")]
fn create(installation: &Installation, root: &Path) -> Result<()> {
    let sysroot = ostree::Sysroot::new(Some(&gio::File::for_path(root)));
    sysroot.ensure_initialized(gio::Cancellable::NONE)?;
    sysroot.load(gio::Cancellable::NONE)?;
    installation.loader.configure(&sysroot.repo())?;
    sysroot.init_osname(&installation.stateroot, gio::Cancellable::NONE)?;
    Ok(())
}

/// Stores the image under the name that the host follows, so that the first upgrade finds it there.
fn follow(repo: &ostree::Repo, installation: &Installation, commit: &str) -> Result<()> {
    if installation.image == installation.followed {
        return Ok(());
    }
    let name = installation.followed.store_ref()?;
    repo.set_ref_immediate(None, &name, Some(commit), gio::Cancellable::NONE)?;
    if name != installation.image.store_ref()? {
        store::remove(repo, &installation.image)?;
    }
    Ok(())
}

/// Returns the directory of the only deployment.
fn deployment_path(host: &Host, root: &Path) -> Result<PathBuf> {
    let sysroot = host.sysroot();
    sysroot.load_if_changed(gio::Cancellable::NONE)?;
    let deployments = sysroot.deployments();
    let first = deployments
        .first()
        .context("libostree shows no deployment after it wrote one")?;
    Ok(root.join(sysroot.deployment_dirpath(first).as_str()))
}

/// Lets the host mount its `/boot`: without it libostree would write the next boot entries where nobody reads them.
#[context("Adding /boot to /etc/fstab")]
fn mount_boot(deployment: &Dir, boot: &BootPlace) -> Result<()> {
    let before = match deployment.read_to_string("etc/fstab") {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.into()),
    };
    let line = format!("UUID={} /boot auto defaults 0 2\n", boot.uuid);
    deployment.atomic_write("etc/fstab", format!("{before}{line}"))?;
    Ok(())
}

/// Returns the fault for a boot loader that must find `/boot` by a UUID where there is none.
pub(super) fn no_uuid(path: &Path) -> Fault {
    Fault::new(
        Kind::Unsupported,
        format!(
            "{} has no file system UUID by which it could be found at boot",
            path.display()
        ),
    )
    .hint("mount a file system of its own there, or say what the kernel shall use with `--root-mount-spec`")
}
