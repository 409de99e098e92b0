//! Looking packages up in the stored indexes: by words, and everything that is known of some.

use super::archive::Archive;
use super::intent::PackageRequest;
use super::packages::matches;
use crate::fault::{Fault, Kind};
use anyhow::Result;
use deb822_fast::Paragraph;
use fn_error_context::context;
use std::collections::BTreeMap;

/// A package in a search result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    /// The name.
    pub name: String,
    /// Its description in one line.
    pub summary: String,
}

/// What a search found, each part sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// A term matches the name, and one the summary.
    pub both: Vec<Match>,
    /// A term matches the name only.
    pub name: Vec<Match>,
    /// A term matches the summary only.
    pub summary: Vec<Match>,
}

/// What the indexes know of one package.
#[derive(Clone, Debug)]
pub struct Information {
    /// The name.
    pub name: String,
    /// Every version there is, the one that would be installed first.
    pub versions: Vec<Offer>,
    /// The version and architecture in the tree.
    pub installed: Option<(String, String)>,
}

/// One version of a package.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// The version.
    pub version: String,
    /// The architecture.
    pub architecture: String,
    /// Where it is offered, as `ADDRESS SUITE/COMPONENT`; nothing for one that only the tree has.
    pub repositories: Vec<String>,
    /// Bytes of the package file; 0 when only the tree has it.
    pub download_size: u64,
    /// Bytes on disk as the package states them.
    pub installed_size: u64,
    /// The relations it has, as `(field, value)`.
    pub relations: Vec<(String, String)>,
    /// Its description in one line.
    pub summary: String,
    /// The project's page.
    pub homepage: Option<String>,
}

/// The relations that are told.
const RELATIONS: [&str; 8] = [
    "Pre-Depends",
    "Depends",
    "Recommends",
    "Suggests",
    "Conflicts",
    "Breaks",
    "Replaces",
    "Provides",
];

impl Archive {
    /// Returns the packages whose name or summary one of the terms matches, upper and lower case alike.
    ///
    /// A term with `*` or `?` must match the whole, others a part of it.
    #[context("Searching the package lists")]
    pub fn search(&self, terms: &[String]) -> Result<Found> {
        self.require_lists()?;
        let patterns: Vec<String> = terms
            .iter()
            .map(|term| term.to_lowercase())
            .map(|term| {
                if term.contains(['*', '?']) {
                    term
                } else {
                    format!("*{term}*")
                }
            })
            .collect();
        let any = |text: &str| {
            let text = text.to_lowercase();
            patterns.iter().any(|pattern| matches(pattern, &text))
        };
        // An expression that fits everything: apt's own matching has no globs.
        let text = self.apt("apt-cache").args(["search", "."]).run()?;
        let mut found = Found::default();
        for line in String::from_utf8_lossy(&text).lines() {
            let Some((name, summary)) = line.split_once(" - ") else {
                continue;
            };
            let group = match (any(name), any(summary)) {
                (true, true) => &mut found.both,
                (true, false) => &mut found.name,
                (false, true) => &mut found.summary,
                (false, false) => continue,
            };
            group.push(Match {
                name: name.to_owned(),
                summary: summary.to_owned(),
            });
        }
        for group in [&mut found.both, &mut found.name, &mut found.summary] {
            group.sort();
            group.dedup();
        }
        Ok(found)
    }

    /// Returns what is known of packages, in the order of the names.
    ///
    /// Fails with one fault that names every package nobody has.
    #[context("Looking packages up")]
    pub fn information(&self, names: &[PackageRequest]) -> Result<Vec<Information>> {
        self.require_lists()?;
        self.require_known(names)?;
        names.iter().map(|name| self.information_of(name)).collect()
    }

    fn information_of(&self, request: &PackageRequest) -> Result<Information> {
        let name = self.full_name(request);
        let candidates = self.show(&["--no-all-versions", "--", &name])?;
        let Some(candidate) = candidates.first().and_then(|record| record.get("Version")) else {
            return Err(Fault::new(
                Kind::NotFound,
                format!("`{request}` is a virtual package, which others provide"),
            )
            .hint(format!("look for them with `apt-ostree search {}`", request.name))
            .into());
        };
        let offered = self.offered(&name)?;
        let mut versions: Vec<Offer> = Vec::new();
        for record in &self.show(&["--", &name])? {
            let offer = offer(record, &offered);
            let known = versions
                .iter_mut()
                .find(|known| (&known.version, &known.architecture) == (&offer.version, &offer.architecture));
            match known {
                // The tree's own record has no size of a file.
                Some(known) => known.download_size = known.download_size.max(offer.download_size),
                None => versions.push(offer),
            }
        }
        versions.sort_by_key(|offer| offer.version != candidate);
        let installed = self.base.find(&request.name, request.architecture.as_deref());
        Ok(Information {
            name: request.name.clone(),
            versions,
            installed: installed.map(|found| (found.id.version.clone(), found.id.architecture.clone())),
        })
    }

    /// Returns the records that `apt-cache show` prints; none when there are none.
    fn show(&self, words: &[&str]) -> Result<Vec<Paragraph>> {
        let output = self.apt("apt-cache").arg("show").args(words).output()?;
        super::solve::parse_records(&output.stdout)
    }

    /// Returns the repositories of each version.
    fn offered(&self, name: &str) -> Result<BTreeMap<String, Vec<String>>> {
        let text = self.apt("apt-cache").args(["madison", "--", name]).run_text()?;
        let mut offered: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines() {
            let mut parts = line.split(" | ").map(str::trim);
            if let (Some(_), Some(version), Some(place)) = (parts.next(), parts.next(), parts.next()) {
                let words: Vec<&str> = place.split(' ').take(2).collect();
                let places = offered.entry(version.to_owned()).or_default();
                let place = words.join(" ");
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        Ok(offered)
    }

    /// Fails when nothing was fetched yet of the repositories there are.
    fn require_lists(&self) -> Result<()> {
        if self.has_lists() {
            return Ok(());
        }
        Err(Fault::new(
            Kind::NotFound,
            "There are no package lists of these repositories on this host",
        )
        .hint("fetch them with `sudo apt-ostree refresh-md`")
        .into())
    }
}

fn offer(record: &Paragraph, offered: &BTreeMap<String, Vec<String>>) -> Offer {
    let field = |name: &str| record.get(name).map(str::to_owned);
    let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let version = field("Version").unwrap_or_default();
    let description = field("Description")
        .or_else(|| field("Description-en"))
        .unwrap_or_default();
    Offer {
        repositories: offered.get(&version).cloned().unwrap_or_default(),
        version,
        architecture: field("Architecture").unwrap_or_default(),
        download_size: number("Size"),
        installed_size: number("Installed-Size") * 1024,
        relations: RELATIONS
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), field(name)?)))
            .collect(),
        summary: description.lines().next().unwrap_or_default().to_owned(),
        homepage: field("Homepage"),
    }
}
