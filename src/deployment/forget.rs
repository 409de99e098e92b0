//! What layering keeps in a stateroot's `/var` for the origins of its deployments, and drops with them.

use crate::deployment::origin::Origin;
use crate::deployment::sysroot::WriteLock;
use crate::layer::answers;
use crate::layer::intent::Intent;
use crate::layer::places::Places;
use crate::layer::store;
use anyhow::Result;
use fn_error_context::context;
use std::collections::{BTreeMap, BTreeSet};

/// Removes package files and answers for debconf that no deployment of their stateroot names.
///
/// Where an origin cannot be read, nothing of its stateroot goes: nobody knows what it needs.
#[context("Removing stored packages that nothing needs")]
pub fn forget_unused(lock: &WriteLock<'_>) -> Result<()> {
    let mut stateroots: BTreeMap<String, Option<Vec<Intent>>> = BTreeMap::new();
    for deployment in lock.host().deployments() {
        let intent = Origin::of(&deployment).and_then(|origin| origin.intent());
        let intents = stateroots
            .entry(deployment.osname().to_string())
            .or_insert_with(|| Some(Vec::new()));
        match (intent, intents.as_mut()) {
            (Ok(intent), Some(list)) => list.push(intent),
            _ => *intents = None,
        }
    }
    for (stateroot, intents) in stateroots {
        let Some(intents) = intents else { continue };
        let places = Places::of(lock.host().path(), &stateroot);
        let files = intents
            .iter()
            .flat_map(|intent| intent.local_packages.iter().chain(&intent.local_replacements))
            .map(|package| package.sha256.clone())
            .collect::<Vec<String>>();
        store::forget_unused(&places, &files)?;
        let answers_in_use: BTreeSet<String> = intents
            .iter()
            .filter_map(|intent| intent.debconf.clone())
            .collect();
        answers::forget_unused(&places, &answers_in_use)?;
    }
    Ok(())
}
