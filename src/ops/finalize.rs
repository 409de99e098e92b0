//! `finalize-deployment`: let a locked staged deployment be applied, and reboot into it.

use crate::deployment::staging;
use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::image::store;
use crate::ops::{Outcome, Target};
use crate::report::Report;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// How to finalize.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// The staged deployment's commit or manifest digest.
    pub checksum: Option<String>,
    /// Do without it.
    pub allow_missing_checksum: bool,
    /// Accept a staged deployment that is not locked.
    pub allow_unlocked: bool,
    /// Stateroot and patience.
    #[serde(flatten)]
    pub target: Target,
}

/// Unlocks the staged deployment; the caller reboots.
pub fn run(host: &Host, options: &Options, report: &dyn Report) -> Result<Outcome> {
    let _lock = host.lock("finalize-deployment", options.target.patience(), report)?;
    let staged = host.sysroot().staged_deployment().ok_or_else(|| {
        Fault::new(Kind::NotFound, "There is no staged deployment")
            .hint("stage one with `apt-ostree upgrade`")
    })?;
    match &options.checksum {
        None if options.allow_missing_checksum => {}
        None => {
            return Err(Fault::new(
                Kind::Usage,
                "The checksum or digest of the staged deployment is missing",
            )
            .hint("name it, or give `--allow-missing-checksum`")
            .into());
        }
        Some(wanted) => {
            let digest = store::query_commit(&host.repo(), &staged.csum())
                .map(|image| image.manifest_digest)
                .unwrap_or_default();
            if staged.csum() != *wanted && digest != *wanted {
                return Err(Fault::new(
                    Kind::NotFound,
                    format!(
                        "The staged deployment is {} ({digest}), not {wanted}",
                        staged.csum()
                    ),
                )
                .hint("see what is staged with `apt-ostree status`")
                .into());
            }
        }
    }
    if !staging::finalization_locked() && !options.allow_unlocked {
        return Err(
            Fault::new(Kind::Unsupported, "The staged deployment is not locked")
                .hint("reboot to apply it, or give `--allow-unlocked`")
                .into(),
        );
    }
    staging::set_finalization_locked(false)?;
    Ok(Outcome::Changed(
        "The staged deployment is applied at the next shutdown.".to_owned(),
    ))
}
