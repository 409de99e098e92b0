//! What `status` tells of a deployment: read without root and without the lock, and never all or nothing.
//!
//! Whatever cannot be read becomes a sentence in [`DeploymentState::problems`]; the rest is told all the same.
//! The JSON keys are rpm-ostree's where it has one for the same fact.

use crate::deployment::layered::Layers;
use crate::deployment::live;
use crate::deployment::origin::{self, Origin};
use crate::deployment::staging;
use crate::deployment::sysroot::Host;
use crate::image::store;
use crate::layer::intent::Intent;
use crate::layer::packages;
use anyhow::Result;
use ostree_ext::ostree;
use serde::Serialize;

/// One deployment.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeploymentState {
    /// `STATEROOT-CHECKSUM.SERIAL`.
    pub id: String,
    /// The stateroot (rpm-ostree's key name).
    #[serde(rename = "osname")]
    pub stateroot: String,
    /// The commit.
    pub checksum: String,
    /// Tells deployments of the same commit apart.
    pub serial: i32,
    /// Whether this machine runs from it.
    pub booted: bool,
    /// Whether it waits for the shutdown to be written.
    pub staged: bool,
    /// Whether it is kept until it is unpinned.
    pub pinned: bool,
    /// Whether a staged deployment waits for `finalize-deployment`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub finalization_locked: bool,
    /// `none`, `development`, `hotfix` or `transient`.
    pub unlocked: String,
    /// The commit's time in seconds since the epoch; 0 when it cannot be read.
    pub timestamp: u64,
    /// The version the image states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The followed image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_image_reference: Option<String>,
    /// The digest of the manifest this was imported from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_image_reference_digest: Option<String>,
    /// The followed OSTree branch of a host without an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The address and the description of what chooses the image instead of the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_origin: Option<(String, String)>,
    /// The digest that `deploy` fixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub override_commit: Option<String>,
    /// The kernel arguments of its boot entry; empty for a staged deployment of another boot.
    pub kernel_arguments: Vec<String>,
    /// The commit that `apply-live` brought the running system to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_replaced: Option<String>,
    /// The commit on whose way an `apply-live` was interrupted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_inprogress: Option<String>,
    /// How many packages are upgraded, downgraded, removed and added in the running system by that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_difference: Option<[usize; 4]>,
    /// What is asked for and what came of it.
    #[serde(flatten)]
    pub layers: Layers,
    /// Sentences about what is broken or could not be read.
    pub problems: Vec<String>,
}

/// Returns all deployments in boot order.
pub fn deployments(host: &Host) -> Vec<DeploymentState> {
    host.deployments()
        .iter()
        .map(|deployment| read(host, deployment))
        .collect()
}

fn read(host: &Host, deployment: &ostree::Deployment) -> DeploymentState {
    let mut state = DeploymentState {
        id: origin::id(deployment),
        stateroot: deployment.osname().to_string(),
        checksum: deployment.csum().to_string(),
        serial: deployment.deployserial(),
        booted: host.booted().is_some_and(|booted| booted.equal(deployment)),
        staged: deployment.is_staged(),
        pinned: deployment.is_pinned(),
        finalization_locked: deployment.is_staged() && staging::finalization_locked(),
        unlocked: ostree::Deployment::unlocked_state_to_string(deployment.unlocked()).to_string(),
        kernel_arguments: staging::current_arguments(deployment).words().to_vec(),
        ..DeploymentState::default()
    };
    if state.booted {
        if let Err(error) = read_live(host, deployment, &mut state) {
            state.problems.push(format!("{error:#}"));
        }
    }
    let intent = read_origin(deployment, &mut state);
    // Nothing else is known of the layers where the commit cannot be read.
    state.layers = Layers::of(&intent, None);
    read_commit(host, &intent, &mut state);
    state
}

fn read_live(host: &Host, deployment: &ostree::Deployment, state: &mut DeploymentState) -> Result<()> {
    let live = live::state(host, deployment)?;
    if let Some(commit) = &live.commit {
        let found = packages::between(&host.repo(), &state.checksum, commit)?;
        state.live_difference = Some([
            found.upgraded.len(),
            found.downgraded.len(),
            found.removed.len(),
            found.added.len(),
        ]);
    }
    state.live_replaced = live.commit;
    state.live_inprogress = live.interrupted;
    Ok(())
}

/// Takes what the origin says, and returns what it asks for on top of the image.
fn read_origin(deployment: &ostree::Deployment, state: &mut DeploymentState) -> Intent {
    let origin = match Origin::of(deployment) {
        Ok(origin) => origin,
        Err(error) => {
            state.problems.push(format!("{error:#}"));
            return Intent::default();
        }
    };
    state.override_commit = origin.pinned_digest();
    state.custom_origin = origin.custom();
    match origin.reference() {
        Ok(Some(reference)) => state.container_image_reference = Some(reference.to_string()),
        Ok(None) => state.origin = origin.refspec(),
        Err(error) => state.problems.push(format!("{error:#}")),
    }
    origin.intent().unwrap_or_else(|error| {
        state.problems.push(format!("{error:#}"));
        Intent::default()
    })
}

fn read_commit(host: &Host, intent: &Intent, state: &mut DeploymentState) {
    let repo = host.repo();
    match repo.load_commit(&state.checksum) {
        Ok((commit, _)) => state.timestamp = ostree::commit_get_timestamp(&commit),
        Err(error) => {
            state.problems.push(format!(
                "The commit {} cannot be read: {}",
                state.checksum,
                error.message()
            ));
            return;
        }
    }
    match Layers::read(&repo, &state.checksum, intent) {
        Ok(layers) => state.layers = layers,
        Err(error) => state.problems.push(format!("{error:#}")),
    }
    if state.container_image_reference.is_none() {
        return;
    }
    match store::query_commit(&repo, &state.checksum) {
        Ok(image) => {
            state.version = image.version();
            for layer in image.manifest.layers() {
                let name = store::layer_ref(layer.digest().as_ref());
                if !matches!(repo.resolve_rev(&name, true), Ok(Some(_))) {
                    state.problems.push(format!(
                        "The layer {} is missing in the repository; `apt-ostree upgrade` fetches it again when it is needed",
                        layer.digest()
                    ));
                }
            }
            state.container_image_reference_digest = Some(image.manifest_digest);
        }
        Err(error) => state
            .problems
            .push(format!("The image's metadata cannot be read: {error:#}")),
    }
}
