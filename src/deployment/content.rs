//! What the tree of a commit asks of its deployment: kernel arguments, and whether it can boot.

use crate::boot::kargs_d;
use crate::boot::loader::grub_safe;
use crate::fault::{Fault, Kind};
use crate::image::content::CommitTree;
use anyhow::Result;
use fn_error_context::context;

impl CommitTree {
    /// Returns the kernel arguments the tree asks for; fails on a file that cannot be used.
    #[context("Reading the image's kernel arguments")]
    pub fn kernel_arguments(&self) -> Result<Vec<String>> {
        let mut words = Vec::new();
        for name in self.list(kargs_d::FOLDER)? {
            if !name.ends_with(".toml") {
                continue;
            }
            if let Some(text) = self.read_text(&format!("{}/{name}", kargs_d::FOLDER))? {
                words.extend(kargs_d::parse(&name, &text, std::env::consts::ARCH)?);
            }
        }
        Ok(words)
    }

    /// Returns the version of the one kernel of the tree, after checking that the tree can boot.
    ///
    /// Fails when there is no kernel or more than one, when the initramfs is missing, when the commit still holds
    /// `/etc`, and when the title of its boot entry would be read as script by GRUB.
    pub fn require_bootable(&self) -> Result<String, anyhow::Error> {
        let mut kernels = Vec::new();
        for version in self.list("usr/lib/modules")? {
            if self.is_file(&format!("usr/lib/modules/{version}/vmlinuz")) {
                kernels.push(version);
            }
        }
        let remedy = "run `apt-ostree container prepare` as the last step of the image's Containerfile";
        let kernel = match kernels.as_slice() {
            [kernel] => kernel.clone(),
            [] => {
                return Err(Fault::new(
                    Kind::Unsupported,
                    "The image holds no kernel below /usr/lib/modules",
                )
                .hint(remedy)
                .into());
            }
            several => {
                let list = several.join(", ");
                return Err(Fault::new(
                    Kind::Unsupported,
                    format!("The image holds more than one kernel: {list}"),
                )
                .hint("remove all but one kernel package in the image's Containerfile")
                .into());
            }
        };
        if !self.is_file(&format!("usr/lib/modules/{kernel}/initramfs.img")) {
            return Err(Fault::new(
                Kind::Unsupported,
                format!("The image has no /usr/lib/modules/{kernel}/initramfs.img"),
            )
            .hint(remedy)
            .into());
        }
        self.check_title()?;
        Ok(kernel)
    }

    /// libostree makes the title of the boot entry from os-release, and GRUB reads the entry as script.
    fn check_title(&self) -> Result<()> {
        let Some(text) = self.read_text("usr/lib/os-release")? else {
            return Ok(());
        };
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            if !matches!(key, "PRETTY_NAME" | "ID" | "NAME" | "VERSION") {
                continue;
            }
            let value = value.trim().trim_matches('"').trim_matches('\'');
            if let Err(c) = grub_safe(value) {
                return Err(Fault::new(
                    Kind::Unsupported,
                    format!(
                        "The image's os-release holds {key}={value}, whose `{c}` GRUB would read as script"
                    ),
                )
                .hint(format!(
                    "give {key} plain words in the image's /usr/lib/os-release"
                ))
                .into());
            }
        }
        Ok(())
    }
}
