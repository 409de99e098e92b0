//! `initramfs`: where the initramfs of the next boot comes from. Changing it is [`crate::ops::layer`]'s.

use crate::deployment::origin::Origin;
use crate::deployment::sysroot::Host;
use anyhow::Result;

/// Returns the arguments for dracut when the initramfs is made on this host. Needs neither root nor the lock.
pub fn show(host: &Host, stateroot: Option<&str>) -> Result<Option<Vec<String>>> {
    let stateroot = host.stateroot(stateroot)?;
    let Some(merge) = host.merge_deployment(&stateroot) else {
        return Ok(None);
    };
    let intent = Origin::of(&merge)?.intent()?;
    Ok(intent.regenerate_initramfs.then_some(intent.initramfs_args))
}
