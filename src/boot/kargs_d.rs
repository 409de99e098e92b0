//! Kernel arguments that an image asks for: `/usr/lib/bootc/kargs.d/*.toml`, as bootc defines them.
//!
//! ```toml
//! kargs = ["console=ttyS0", "quiet"]
//! match-architectures = ["x86_64"]
//! ```

use crate::boot::kargs::{KernelArguments, checked};
use crate::fault::{Fault, Kind};
use serde::Deserialize;

/// The folder below the root of an image.
pub const FOLDER: &str = "usr/lib/bootc/kargs.d";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    kargs: Vec<String>,
    match_architectures: Option<Vec<String>>,
}

/// Returns the arguments of one file; none when the file is for another architecture.
///
/// `architecture` is the kernel's name (`x86_64`). Fails on a file that does not parse and on an argument that
/// would not reach the kernel unchanged, naming the file.
pub fn parse(name: &str, text: &str, architecture: &str) -> Result<Vec<String>, Fault> {
    let invalid = |reason: String| {
        Fault::new(
            Kind::Invalid,
            format!("The image's {FOLDER}/{name} cannot be used: {reason}"),
        )
        .hint("mend the file in the image and build it again")
    };
    let file: File =
        toml::from_str(text).map_err(|error| invalid(error.to_string().trim_end().to_owned()))?;
    if file
        .match_architectures
        .is_some_and(|list| !list.iter().any(|known| known == architecture))
    {
        return Ok(Vec::new());
    }
    let mut words = Vec::new();
    for entry in &file.kargs {
        for word in KernelArguments::parse(entry).words() {
            words.push(checked(word).map_err(|fault| invalid(fault.message))?);
        }
    }
    Ok(words)
}

/// Applies to `current` what changed between the arguments the old image asked for and those the new one does.
///
/// What an administrator added stays, and what an administrator removed stays away unless the new image asks for
/// it for the first time.
pub fn apply_difference(current: &mut KernelArguments, old: &[String], new: &[String]) {
    for word in old.iter().filter(|word| !new.contains(word)) {
        current.remove(word);
    }
    for word in new.iter().filter(|word| !old.contains(word)) {
        if !current.contains(word) {
            current.push(word.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_difference_is_applied() {
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mut current = KernelArguments::parse("root=x mine removed-by-image=1");
        apply_difference(
            &mut current,
            &own(&["removed-by-image=1", "kept", "same"]),
            &own(&["same", "kept", "fresh"]),
        );
        assert_eq!(current.to_string(), "root=x mine fresh");
    }

    #[test]
    fn files_are_read_for_their_architecture() {
        let text = "kargs = [\"a=1 b\", \"c\"]\nmatch-architectures = [\"x86_64\"]\n";
        assert_eq!(parse("10.toml", text, "x86_64").unwrap(), ["a=1", "b", "c"]);
        assert!(parse("10.toml", text, "aarch64").unwrap().is_empty());
    }

    #[test]
    fn mistakes_name_the_file() {
        for text in [
            "kargs = 3",
            "kargs = [\"a;b\"]",
            "karg = []",
            "kargs = [\"ostree=x\"]",
        ] {
            assert!(
                parse("10.toml", text, "x86_64")
                    .unwrap_err()
                    .message
                    .contains("kargs.d/10.toml"),
                "{text}"
            );
        }
    }
}
