//! From a plain Debian root, as dpkg left it, to the layout of an image.
//!
//! New accounts get the ids of this host; then the root is prepared as an image is, by the same code.

use super::ids::Ids;
use super::plan::Plan;
use super::stage::Stage;
use super::{dkms, owners};
use crate::compose::prepare::{self, Layer, Regenerate, Scope};
use crate::compose::rootfs;
use crate::compose::sysusers::Accounts;
use crate::report::{Event, Report};
use anyhow::Result;
use cap_std_ext::cap_std::ambient_authority;
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What is to be done beside what the packages ask for.
#[derive(Clone, Debug, Default)]
pub struct TranslateOptions {
    /// Whether a package asked for a new initramfs; one is made only if what goes into it changed.
    pub initramfs_wanted: bool,
    /// More arguments for dracut, when the initramfs is to be made on this host.
    pub initramfs: Option<Vec<String>>,
    /// The host's `/etc`, whose settings of dracut count then.
    pub etc: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// Release of the one kernel.
    pub kernel: String,
    /// Whether an initramfs was made.
    pub initramfs_made: bool,
    /// What the user was warned of, in full sentences.
    pub warnings: Vec<String>,
}

/// Turns the stage, in which the packages of `plan` are installed, into the layout of an image.
///
/// The host's table of ids is written when it changed, before anything else can depend on it. Fails with a fault on
/// what no image can have, for example two kernels; the stage is of no use then.
#[context("Making the packages part of the image")]
pub fn translate(
    stage: &Stage,
    plan: &Plan,
    ids: &mut Ids,
    options: &TranslateOptions,
    report: &dyn Report,
) -> Result<Translated> {
    let recorder = Recorder {
        report,
        warnings: Mutex::default(),
    };
    let open = |path: &Path| Dir::open_ambient_dir(path, ambient_authority());
    let (base, upper) = (open(stage.base())?, open(stage.upper())?);
    give_ids(stage, &base, ids, &recorder)?;
    for kernel in rootfs::names(stage.dir(), "usr/lib/modules")? {
        let modules = Path::new("usr/lib/modules").join(&kernel);
        if rootfs::is_file(stage.dir(), modules.join("modules.order"))? {
            for warning in dkms::missing(stage.dir(), &kernel.to_string_lossy())? {
                recorder.warning(&warning);
            }
        }
    }
    let regenerate = options.initramfs.as_ref().map(|arguments| Regenerate {
        arguments: arguments.clone(),
        etc: options.etc.clone(),
    });
    let kernel_package = plan.packages.iter().find(|package| {
        !package.automatic && package.replaces.is_none() && package.id.name.starts_with("linux-image")
    });
    let prepared = prepare::run(
        stage.dir(),
        &prepare::Options {
            path: stage.root().to_owned(),
            scope: Scope::Layer(Layer {
                base: &base,
                upper: &upper,
                kernel_package: kernel_package.map(|package| package.id.name.as_str()),
                initramfs_wanted: options.initramfs_wanted,
                regenerate: regenerate.as_ref(),
            }),
        },
        &recorder,
    )?;
    Ok(Translated {
        kernel: prepared.kernel,
        initramfs_made: prepared.initramfs_made,
        warnings: recorder
            .warnings
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner()),
    })
}

fn give_ids(stage: &Stage, base: &Dir, ids: &mut Ids, report: &dyn Report) -> Result<()> {
    let before = Accounts::load(base)?;
    let (mapping, warnings) = ids.assign(&before, &Accounts::load(stage.dir())?)?;
    for warning in warnings {
        report.warning(&warning);
    }
    ids.save()?;
    owners::change(stage, &mapping, &before)
}

/// Passes events on and keeps the warnings for the commit's record.
struct Recorder<'a> {
    report: &'a dyn Report,
    warnings: Mutex<Vec<String>>,
}

impl Report for Recorder<'_> {
    fn event(&self, event: Event) {
        if let Event::Warning { text } = &event {
            if let Ok(mut warnings) = self.warnings.lock() {
                warnings.push(text.clone());
            }
        }
        self.report.event(event);
    }
}
