//! Modules that packages bring as source: dkms builds them where the kernel's headers are, and else says nothing.

use crate::compose::rootfs;
use anyhow::Result;
use cap_std_ext::cap_std::fs::Dir;
use fn_error_context::context;
use std::path::Path;

/// Where packages put their sources, each in `NAME-VERSION`.
const SOURCES: &str = "usr/src";

/// Returns a sentence for every dkms module that was not built for `kernel`.
///
/// Must be called before `/var` is emptied: dkms keeps its results there.
#[context("Looking for the modules that dkms builds")]
pub(super) fn missing(root: &Dir, kernel: &str) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for folder in rootfs::names(root, SOURCES)? {
        let settings = Path::new(SOURCES).join(&folder).join("dkms.conf");
        let Some(text) = rootfs::read_text(root, &settings)? else {
            continue;
        };
        let (Some(name), Some(version)) = (value(&text, "PACKAGE_NAME"), value(&text, "PACKAGE_VERSION"))
        else {
            continue;
        };
        if is_built(root, &name, &version, kernel)? {
            continue;
        }
        let headers = rootfs::look(root, Path::new("usr/lib/modules").join(kernel).join("build"))?;
        warnings.push(match headers {
            None => format!(
                "The modules of {name} {version} were not built: the headers of the kernel are missing, install linux-headers-{kernel} as well."
            ),
            Some(_) => format!("dkms did not build the modules of {name} {version} for the kernel {kernel}."),
        });
    }
    Ok(warnings)
}

/// dkms puts what it built into `NAME/VERSION/KERNEL/ARCHITECTURE/module`.
fn is_built(root: &Dir, name: &str, version: &str, kernel: &str) -> Result<bool> {
    let kernel = Path::new("var/lib/dkms").join(name).join(version).join(kernel);
    for architecture in rootfs::names(root, &kernel)? {
        if !rootfs::names(root, kernel.join(architecture).join("module"))?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the value of a variable in a file for a shell, when it is a plain word.
fn value(text: &str, variable: &str) -> Option<String> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(variable)?.strip_prefix('='))?;
    let word = line.trim().trim_matches('"').trim_matches('\'');
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-._~".contains(c);
    (!word.is_empty() && !word.starts_with('.') && word.chars().all(plain)).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_std_ext::cap_std::ambient_authority;

    #[test]
    fn a_module_without_headers_is_told_with_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let root = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
        root.create_dir_all("usr/src/loop-1.0").unwrap();
        root.create_dir_all("usr/src/linux-headers-6").unwrap();
        let text = "PACKAGE_NAME=\"loop\"\nPACKAGE_VERSION=1.0\n";
        root.write("usr/src/loop-1.0/dkms.conf", text).unwrap();
        let told = missing(&root, "6-amd64").unwrap();
        assert!(
            told.len() == 1 && told[0].contains("install linux-headers-6-amd64"),
            "{told:?}"
        );
        root.create_dir_all("usr/lib/modules/6-amd64/build").unwrap();
        assert!(missing(&root, "6-amd64").unwrap()[0].contains("did not build"));
        root.create_dir_all("var/lib/dkms/loop/1.0/6-amd64/x86_64/module")
            .unwrap();
        assert_eq!(missing(&root, "6-amd64").unwrap().len(), 1);
        root.write("var/lib/dkms/loop/1.0/6-amd64/x86_64/module/loop.ko", "")
            .unwrap();
        assert!(missing(&root, "6-amd64").unwrap().is_empty());
    }

    #[test]
    fn only_plain_words_become_paths() {
        for text in ["X=$Y", "X=../up", "X=a/b", "X=", "Y=1"] {
            assert_eq!(value(text, "X"), None, "{text}");
        }
    }
}
