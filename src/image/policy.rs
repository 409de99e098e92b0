//! The signature policy of the container tools, `policy.json`.
//!
//! skopeo enforces the policy; this module only answers, by the rules of containers-policy.json(5), whether the
//! policy demands signatures of an image. The file found here is handed to skopeo by name, so that what is
//! decided here is what skopeo enforces, whichever places the installed version would search.

use crate::fault::{Fault, Kind};
use crate::host::surroundings::Surroundings;
use crate::image::name::RegistryName;
use crate::image::reference::{ImageReference, Transport};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The rules of a policy file, and where they were read.
#[derive(Clone, Debug)]
pub struct Policy {
    path: PathBuf,
    rules: Rules,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// One requirement; what only skopeo needs for enforcing it is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type")]
enum Requirement {
    #[serde(rename = "insecureAcceptAnything")]
    InsecureAcceptAnything,
    #[serde(rename = "reject")]
    Reject,
    #[serde(rename = "signedBy")]
    SignedBy,
    #[serde(rename = "signedBaseLayer")]
    SignedBaseLayer,
    #[serde(rename = "sigstoreSigned")]
    SigstoreSigned,
}

/// What a policy says about one image, from lenient to strict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Anything is accepted.
    AcceptsAnything,
    /// Only images with a valid signature are accepted.
    DemandsSignature,
    /// No image is accepted.
    Rejects,
}

impl Policy {
    /// Reads the policy in force for this process.
    ///
    /// Fails with a fault that names the file when there is none, or when it does not parse.
    pub fn load() -> Result<Self> {
        Self::load_in(&Surroundings::current())
    }

    /// Reads the policy in force in `surroundings`: `$CONTAINERS_POLICY_JSON`, the user's own, `/etc`, `/usr`.
    pub fn load_in(surroundings: &Surroundings) -> Result<Self> {
        let named = surroundings.path("CONTAINERS_POLICY_JSON");
        let own = surroundings
            .home()
            .map(|home| home.join(".config/containers/policy.json"));
        let places = match named {
            Some(named) => vec![named],
            None => own
                .into_iter()
                .chain(
                    ["/etc/containers/policy.json", "/usr/share/containers/policy.json"].map(PathBuf::from),
                )
                .collect(),
        };
        for path in &places {
            match std::fs::read(path) {
                Ok(text) => return Self::parse(path, &text).map_err(Into::into),
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                    ) => {}
                Err(error) => return Err(error).with_context(|| format!("Reading {}", path.display())),
            }
        }
        let searched: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
        Err(Fault::new(
            Kind::NotFound,
            format!("There is no signature policy: none of {} exists", searched.join(", ")),
        )
        .hint("install the Debian package golang-github-containers-common, which holds /etc/containers/policy.json")
        .into())
    }

    /// Reads a policy from text; `path` is named in errors.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, Fault> {
        let invalid = |reason: String| {
            Fault::new(
                Kind::Invalid,
                format!("The signature policy {} is not valid: {reason}", path.display()),
            )
            .hint("see containers-policy.json(5); nothing is pulled until the file is mended")
        };
        // The error of serde_json ends with the line and column.
        let rules: Rules = serde_json::from_slice(text).map_err(|error| invalid(error.to_string()))?;
        let scopes = rules.transports.iter().flat_map(|(transport, scopes)| {
            scopes
                .iter()
                .map(move |(scope, requirements)| (format!("`{transport}` scope `{scope}`"), requirements))
        });
        for (place, requirements) in scopes.chain([("default".to_owned(), &rules.default)]) {
            if requirements.is_empty() {
                return Err(invalid(format!("the list of requirements of {place} is empty")));
            }
        }
        let path = path.to_owned();
        Ok(Self { path, rules })
    }

    /// Returns the file the policy was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file the policy was read from, for messages.
    pub fn source(&self) -> String {
        self.path.display().to_string()
    }

    /// Returns whether only images with a valid signature are accepted under this reference.
    pub fn requires_signature_for(&self, reference: &ImageReference) -> bool {
        self.verdict(reference) == Verdict::DemandsSignature
    }

    /// Refuses what the policy makes pointless to fetch: an image it rejects, and a reference that promises
    /// verification when the rule in force accepts anything.
    pub fn check(&self, reference: &ImageReference) -> Result<()> {
        match self.verdict(reference) {
            Verdict::Rejects => Err(Fault::new(
                Kind::Denied,
                format!("The signature policy {} rejects {reference}", self.source()),
            )
            .hint("add a rule for the image to the policy; see containers-policy.json(5)")
            .into()),
            Verdict::AcceptsAnything if reference.requires_signature() => Err(Fault::new(
                Kind::Denied,
                format!(
                    "{reference} asks for a signed image, and the signature policy {} accepts anything \
                     (insecureAcceptAnything) for it",
                    self.source()
                ),
            )
            .hint("add a signedBy or sigstoreSigned rule for the image to the policy; see containers-policy.json(5)")
            .into()),
            _ => Ok(()),
        }
    }

    /// Returns what the most specific rule for the image says.
    pub fn verdict(&self, reference: &ImageReference) -> Verdict {
        verdict(self.requirements(reference))
    }

    fn requirements(&self, reference: &ImageReference) -> &[Requirement] {
        let transport = match reference.transport() {
            Transport::Registry => "docker",
            other => other.serializable_name(),
        };
        let Some(rules) = self.rules.transports.get(transport) else {
            return &self.rules.default;
        };
        scopes(reference)
            .iter()
            .find_map(|scope| rules.get(scope))
            .or_else(|| storage_rule(reference, rules))
            .or_else(|| rules.get(""))
            .unwrap_or(&self.rules.default)
    }
}

/// Returns the scopes under which an image is looked up, the most specific first.
fn scopes(reference: &ImageReference) -> Vec<String> {
    match reference.transport() {
        Transport::Registry => match RegistryName::parse(reference.name()) {
            Ok(name) => registry_scopes(&name),
            Err(_) => Vec::new(),
        },
        // Docker archives have no identity: only the scope "" applies to them.
        Transport::DockerArchive => Vec::new(),
        Transport::ContainerStorage => match RegistryName::parse(reference.name()) {
            Ok(name) => {
                let mut scopes = vec![full_name(&name)];
                scopes.extend(parents(&name.full_repository()));
                scopes
            }
            Err(_) => Vec::new(),
        },
        Transport::Dir => path_scopes(reference.name()),
        Transport::OciDir | Transport::OciArchive => {
            path_scopes(reference.name().split(':').next().unwrap_or_default())
        }
    }
}

fn full_name(name: &RegistryName) -> String {
    let repository = name.full_repository();
    match (&name.digest, &name.tag) {
        (Some(digest), _) => format!("{repository}@{digest}"),
        (None, tag) => format!("{repository}:{}", tag.as_deref().unwrap_or("latest")),
    }
}

/// The whole name, the repository, its parents up to the host, then `*.` wildcards of the host's parents.
fn registry_scopes(name: &RegistryName) -> Vec<String> {
    let mut scopes = vec![full_name(name)];
    scopes.extend(parents(&name.full_repository()));
    let host = name.host();
    let mut host = host.split(':').next().unwrap_or_default();
    while let Some((_, parent)) = host.split_once('.') {
        scopes.push(format!("*.{parent}"));
        host = parent;
    }
    scopes
}

fn parents(name: &str) -> Vec<String> {
    let mut name = name;
    let mut all = vec![name.to_owned()];
    while let Some((parent, _)) = name.rsplit_once('/') {
        all.push(parent.to_owned());
        name = parent;
    }
    all
}

/// The real path and its parents, without the root directory.
fn path_scopes(path: &str) -> Vec<String> {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
    real.ancestors()
        .filter_map(Path::to_str)
        .filter(|scope| !scope.is_empty() && *scope != "/")
        .map(str::to_owned)
        .collect()
}

/// Scopes of podman's storage may begin with the store, `[driver@root]`, which is not known here: every such rule
/// for the name counts, and of several the strictest, so that in doubt a signature is demanded.
fn storage_rule<'a>(
    reference: &ImageReference,
    rules: &'a BTreeMap<String, Vec<Requirement>>,
) -> Option<&'a Vec<Requirement>> {
    if reference.transport() != Transport::ContainerStorage {
        return None;
    }
    let mut wanted = scopes(reference);
    wanted.push(String::new());
    let applies = |scope: &str| {
        let behind_store = scope.strip_prefix('[').and_then(|scope| scope.split_once(']'));
        behind_store.is_some_and(|(_, name)| wanted.iter().any(|wanted| wanted == name))
    };
    rules
        .iter()
        .filter(|(scope, _)| applies(scope))
        .map(|(_, requirements)| requirements)
        .max_by_key(|requirements| verdict(requirements))
}

/// All requirements of a list must hold, so one that demands makes the list demand.
fn verdict(requirements: &[Requirement]) -> Verdict {
    if requirements.contains(&Requirement::Reject) {
        Verdict::Rejects
    } else if requirements
        .iter()
        .all(|requirement| *requirement == Requirement::InsecureAcceptAnything)
    {
        Verdict::AcceptsAnything
    } else {
        Verdict::DemandsSignature
    }
}
