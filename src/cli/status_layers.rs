//! The lines of `status` about what stands on top of an image.

use crate::deployment::layered::Layers;
use crate::layer::plan::PackageId;

/// Returns ` + N packages` where packages stand on top of the image.
pub(crate) fn count(layers: &Layers) -> String {
    match layers.packages.len() {
        0 => String::new(),
        1 => " + 1 package".to_owned(),
        count => format!(" + {count} packages"),
    }
}

/// Returns the lines about what stands on top of the image, those without a value included.
pub(crate) fn lines(layers: &Layers) -> Vec<(&'static str, String)> {
    // `<sha256>:name_version_architecture`: people know a file by what stands behind the digest.
    let id = |text: &String| {
        text.split_once(':')
            .map_or(text.as_str(), |(_, id)| id)
            .to_owned()
    };
    let active = |list: Vec<String>| {
        let is_active = |text: &String| !layers.inactive_requests.contains(text);
        list.into_iter().filter(is_active).collect::<Vec<_>>().join(" ")
    };
    let replaced = |pairs: &mut dyn Iterator<Item = &(PackageId, PackageId)>| {
        let shown = pairs.map(|(new, old)| format!("{} {} -> {}", new.name, old.version, new.version));
        shown.collect::<Vec<_>>().join(", ")
    };
    let removed: Vec<&str> = layers
        .base_removals
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let initramfs = match (layers.regenerate_initramfs, layers.initramfs_args.as_slice()) {
        (false, _) => String::new(),
        (true, []) => "regenerate".to_owned(),
        (true, arguments) => arguments.join(" "),
    };
    vec![
        ("RemovedBasePackages", removed.join(" ")),
        ("InactiveBaseRemovals", layers.inactive_base_removals.join(" ")),
        (
            "LocalOverrides",
            replaced(&mut layers.base_local_replacements.iter()),
        ),
        (
            "InactiveLocalOverrides",
            layers.inactive_base_local_replacements.join(" "),
        ),
        (
            "RemoteOverrides",
            replaced(&mut layers.base_remote_replacements.values().flatten()),
        ),
        (
            "InactiveRemoteOverrides",
            layers.inactive_base_remote_replacements.join(" "),
        ),
        ("InactiveRequests", layers.inactive_requests.join(" ")),
        ("LayeredPackages", active(layers.requested_packages.clone())),
        (
            "LocalPackages",
            active(layers.requested_local_packages.iter().map(id).collect()),
        ),
        ("Initramfs", initramfs),
        ("InitramfsEtc", layers.initramfs_etc.join(" ")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::intent::Intent;
    use crate::layer::plan::Dormant;
    use crate::layer::record::{LayeredPackage, Record, ReplacedPackage};

    fn id(name: &str, version: &str) -> PackageId {
        PackageId {
            name: name.to_owned(),
            architecture: "amd64".to_owned(),
            version: version.to_owned(),
        }
    }

    #[test]
    fn active_and_inactive_requests_are_told_apart() {
        let local = |text: &str| format!("{}:{text}", "a".repeat(64)).parse().unwrap();
        let intent = Intent {
            packages: ["htop", "bash"].map(|text| text.parse().unwrap()).into(),
            local_packages: [local("tool_1_amd64")].into(),
            removals: ["nano", "joe"].map(|text| text.parse().unwrap()).into(),
            replacements: ["git".parse().unwrap()].into(),
            local_replacements: [local("curl_9_amd64")].into(),
            regenerate_initramfs: true,
            ..Intent::default()
        };
        let package = |name: &str, requested, local| LayeredPackage {
            id: id(name, "1"),
            requested,
            local,
            repository: String::new(),
        };
        let record = Record {
            packages: vec![
                package("htop", true, false),
                package("libnl", false, false),
                package("tool", true, true),
            ],
            removed: vec![id("nano", "7")],
            replaced: vec![ReplacedPackage {
                id: id("git", "2"),
                before: "1".to_owned(),
                local: false,
                repository: "Debian".to_owned(),
            }],
            dormant: vec![Dormant {
                request: "bash".to_owned(),
                provided_by: "bash 5".to_owned(),
            }],
            ..Record::default()
        };
        let layers = Layers::of(&intent, Some(&record));
        assert_eq!(count(&layers), " + 2 packages");
        let shown: Vec<String> = lines(&layers)
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key}: {value}"))
            .collect();
        let expected = [
            "RemovedBasePackages: nano",
            "InactiveBaseRemovals: joe",
            "InactiveLocalOverrides: curl_9_amd64",
            "RemoteOverrides: git 1 -> 2",
            "InactiveRequests: bash",
            "LayeredPackages: htop",
            "LocalPackages: tool_1_amd64",
            "Initramfs: regenerate",
        ];
        assert_eq!(shown, expected);
        // Without a derived commit nothing is in force.
        let layers = Layers::of(&intent, None);
        assert_eq!(count(&layers), "");
        assert_eq!(layers.inactive_requests, ["bash", "htop", "tool_1_amd64"]);
        let keys = serde_json::to_value(&layers).unwrap();
        for key in [
            "base-removals",
            "base-local-replacements",
            "base-remote-replacements",
            "packages",
        ] {
            assert!(keys.get(key).is_some(), "{key}");
        }
    }
}
