//! Options as a caller gives them: words that mean descriptors, and the few that the service takes for itself.
//!
//! A privileged service must not open a path for somebody who may not. So a package file or a file of debconf answers
//! is handed over open: the word `@N` means the N-th descriptor of the option `files`, and paths are refused. The
//! process that carries the request out has the descriptors under fixed numbers.

use crate::daemon::variant::{self, Fields};
use crate::fault::{Fault, Kind};
use rustix::fs::{OFlags, fcntl_getfl};
use serde_json::{Map, Value as Json};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use zbus::zvariant::Value;

/// The option with the descriptors, of the type `ah`.
pub(super) const FILES: &str = "files";

/// The option with the words that a person typed.
pub(super) const COMMAND_LINE: &str = "initiating-command-line";

/// The number under which the other process has the first descriptor.
const FIRST: i32 = 700;

/// Copies get numbers from here on, so that none is overwritten while another takes its place.
const COPIES: i32 = 800;

/// The most that one message of the system bus holds.
const MOST: usize = 16;

/// The longest title; what is longer is cut.
const LONGEST_TITLE: usize = 200;

/// Options whose words may be package files.
const PACKAGES: &[&str] = &["packages", "install", "replace"];

/// The option that names a file of answers.
const ANSWERS: &str = "debconf";

/// What a caller gave.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The options of the request.
    pub(super) options: Map<String, Json>,
    /// The descriptors that they mean.
    pub(super) files: Vec<Arc<OwnedFd>>,
    /// What a person typed, fit to be shown.
    pub(super) title: Option<String>,
}

impl Given {
    /// Reads the arguments of a call, those by position with the names that the request has for them.
    ///
    /// Fails for a path, for a word without a descriptor, for a descriptor without a word, and for one that its owner
    /// cannot read from.
    pub(super) fn read(verb: &str, positional: &[(&str, Json)], fields: &Fields) -> Result<Self, Fault> {
        let mut given = Self::default();
        for (name, value) in positional {
            given.options.insert((*name).to_owned(), value.clone());
        }
        for (name, value) in fields {
            match name.as_str() {
                FILES => given.files = descriptors(value)?,
                COMMAND_LINE => given.title = Some(title(value)?),
                _ if given.options.contains_key(name) => {
                    return Err(Fault::new(
                        Kind::Usage,
                        format!("`{name}` of `{verb}` is an argument, not an option"),
                    ));
                }
                _ => {
                    given.options.insert(name.clone(), variant::json(name, value)?);
                }
            }
        }
        let mut used = vec![false; given.files.len()];
        // What `kargs` replaces is no package.
        let packages = PACKAGES.iter().filter(|_| verb != "kargs");
        for name in packages {
            if let Some(Json::Array(words)) = given.options.get_mut(*name) {
                words
                    .iter_mut()
                    .try_for_each(|word| replace(name, word, &mut used))?;
            }
        }
        if let Some(word) = given.options.get_mut(ANSWERS) {
            replace(ANSWERS, word, &mut used)?;
        }
        match used.iter().position(|used| !used) {
            None => Ok(given),
            Some(unused) => Err(Fault::new(
                Kind::Usage,
                format!("Nothing refers to the descriptor {unused} of the option `{FILES}`"),
            )
            .hint(format!("name it `@{unused}` where a file is meant"))),
        }
    }

    /// Returns the descriptors with the numbers that the words name.
    pub(super) fn numbered(files: &[Arc<OwnedFd>]) -> impl Iterator<Item = (Arc<OwnedFd>, i32)> {
        files.iter().cloned().zip(FIRST..)
    }
}

/// Replaces a word that means a descriptor by the path the other process opens it at.
fn replace(option: &str, word: &mut Json, used: &mut [bool]) -> Result<(), Fault> {
    let Json::String(text) = word else {
        // Whoever reads the option tells what it takes.
        return Ok(());
    };
    if let Some(number) = text.strip_prefix('@') {
        let index = number.parse::<usize>().ok().filter(|index| *index < used.len());
        let index = index.ok_or_else(|| {
            Fault::new(
                Kind::Usage,
                format!("`{text}` of `{option}` means no descriptor of the option `{FILES}`"),
            )
        })?;
        used[index] = true;
        *text = format!("/proc/self/fd/{}", FIRST as usize + index);
        return Ok(());
    }
    let starts_as_path = ["/", "./", "../", "file:"]
        .iter()
        .any(|start| text.starts_with(start));
    let is_path = starts_as_path || (text.ends_with(".deb") && !text.starts_with("https://"));
    if is_path || option == ANSWERS {
        return Err(Fault::new(
            Kind::Denied,
            format!("`{text}` of `{option}` is refused: the service opens no path for a caller"),
        )
        .hint(format!(
            "hand the open file over in the option `{FILES}` and name it `@0`, as `apt-ostree` does"
        )));
    }
    Ok(())
}

fn descriptors(value: &Value<'_>) -> Result<Vec<Arc<OwnedFd>>, Fault> {
    let mistake = |reason: &str| Fault::new(Kind::Usage, format!("The option `{FILES}` {reason}"));
    let Value::Array(list) = value else {
        return Err(mistake("is no list of descriptors"));
    };
    if list.len() > MOST {
        return Err(mistake(&format!("has more than {MOST} descriptors")));
    }
    let mut files = Vec::new();
    for item in list.iter() {
        let Value::Fd(descriptor) = item else {
            return Err(mistake("is no list of descriptors"));
        };
        // Opening it again asks nobody whether the caller may read it, so that must show here.
        let flags = fcntl_getfl(descriptor).map_err(|error| mistake(&format!("cannot be used: {error}")))?;
        if flags.contains(OFlags::PATH) || flags & OFlags::RWMODE == OFlags::WRONLY {
            return Err(mistake("has a descriptor that is not open for reading"));
        }
        let copy = rustix::io::fcntl_dupfd_cloexec(descriptor, COPIES)
            .map_err(|error| mistake(&format!("cannot be used: {error}")))?;
        files.push(Arc::new(copy));
    }
    Ok(files)
}

/// Returns a caller's text without what would disturb a terminal or a log.
pub(super) fn shown(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(LONGEST_TITLE).collect::<String>().trim().to_owned()
}

fn title(value: &Value<'_>) -> Result<String, Fault> {
    match value {
        Value::Str(text) => Ok(shown(text)),
        _ => Err(Fault::new(
            Kind::Usage,
            format!("The option `{COMMAND_LINE}` is no text"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;
    use zbus::zvariant::{Fd, OwnedValue};

    fn fields(words: &[&str], files: Vec<File>) -> Fields {
        let files: Vec<Fd<'_>> = files
            .into_iter()
            .map(|file| Fd::from(OwnedFd::from(file)))
            .collect();
        Fields::from([
            (
                "packages".to_owned(),
                OwnedValue::try_from(Value::from(words.to_vec())).unwrap(),
            ),
            ("files".to_owned(), Value::from(files).try_into_owned().unwrap()),
        ])
    }

    fn null() -> File {
        File::open("/dev/null").unwrap()
    }

    #[test]
    fn words_that_mean_descriptors_become_the_paths_of_the_other_process() {
        let given = Given::read(
            "install",
            &[],
            &fields(&["htop", "@1", "https://h/a.deb", "@0"], vec![null(), null()]),
        )
        .unwrap();
        assert_eq!(
            given.options["packages"],
            serde_json::json!([
                "htop",
                "/proc/self/fd/701",
                "https://h/a.deb",
                "/proc/self/fd/700"
            ])
        );
        let packages = [("packages", serde_json::json!(["@0"]))];
        let mut by_position = fields(&[], vec![null()]);
        assert!(
            Given::read("install", &packages, &by_position).is_err(),
            "given twice"
        );
        by_position.remove("packages");
        let read = Given::read("install", &packages, &by_position).unwrap();
        assert_eq!(read.options["packages"][0], "/proc/self/fd/700");
        let numbers: Vec<i32> = Given::numbered(&given.files).map(|(_, number)| number).collect();
        assert_eq!(numbers, [700, 701]);
    }

    #[test]
    fn paths_and_words_without_a_descriptor_are_refused() {
        for word in [
            "/etc/shadow",
            "./a.deb",
            "../b",
            "c_1_all.deb",
            "file:///x",
            "/proc/self/fd/700",
        ] {
            let fault = Given::read("install", &[], &fields(&[word], vec![])).unwrap_err();
            assert_eq!(fault.kind, Kind::Denied, "{word}");
        }
        for word in ["@0", "@1", "@", "@-1", "@x"] {
            let fault = Given::read("install", &[], &fields(&[word], vec![])).unwrap_err();
            assert!(fault.message.contains(word), "{fault}");
        }
        let fault = Given::read("install", &[], &fields(&["htop"], vec![null()])).unwrap_err();
        assert!(fault.message.contains("descriptor 0"), "{fault}");
        let answers = Fields::from([(
            "debconf".to_owned(),
            OwnedValue::try_from(Value::from("answers")).unwrap(),
        )]);
        assert_eq!(
            Given::read("install", &[], &answers).unwrap_err().kind,
            Kind::Denied
        );
        let arguments = Fields::from([(
            "replace".to_owned(),
            OwnedValue::try_from(Value::from(vec!["/a=b"])).unwrap(),
        )]);
        assert!(Given::read("kargs", &[], &arguments).is_ok());
    }

    #[test]
    fn a_descriptor_that_its_owner_cannot_read_is_refused() {
        let write_only = OpenOptions::new().write(true).open("/dev/null").unwrap();
        let path_only = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::PATH.bits() as i32)
            .open("/etc/shadow")
            .unwrap();
        for file in [write_only, path_only] {
            let fault = Given::read("install", &[], &fields(&["@0"], vec![file])).unwrap_err();
            assert!(fault.message.contains("not open for reading"), "{fault}");
        }
    }

    #[test]
    fn titles_are_fit_to_be_shown() {
        assert_eq!(shown("upgrade\n\x1b[31m --reboot "), "upgrade  [31m --reboot");
        assert_eq!(shown(&"x".repeat(1000)).len(), LONGEST_TITLE);
    }
}
