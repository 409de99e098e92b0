//! How a solved transaction is shown: what `--dry-run` prints.

use crate::layer::plan::{Plan, PlannedPackage};
use anyhow::Result;
use indicatif::HumanBytes;
use serde_json::{Value, json};
use std::fmt::Write;

/// Returns the transaction as text: a table of packages, what goes, what is dormant, and totals.
pub(crate) fn text(plan: &Plan) -> String {
    let mut out = String::new();
    let (new, replaced): (Vec<_>, Vec<_>) = plan
        .packages
        .iter()
        .partition(|package| package.replaces.is_none());
    for (verb, packages) in [("Installing", new), ("Replacing", replaced)] {
        if packages.is_empty() {
            continue;
        }
        line(&mut out, &format!("{verb} {}:", count(packages.len())));
        for row in table(&packages) {
            line(&mut out, &format!("  {row}"));
        }
    }
    if !plan.removals.is_empty() {
        line(&mut out, &format!("Removing {}:", count(plan.removals.len())));
        for package in &plan.removals {
            line(
                &mut out,
                &format!("  {} {} {}", package.name, package.version, package.architecture),
            );
        }
    }
    for dormant in &plan.dormant {
        line(
            &mut out,
            &format!(
                "Inactive: {} (already provided by {})",
                dormant.request, dormant.provided_by
            ),
        );
    }
    if plan.is_empty() {
        line(&mut out, "Empty transaction");
        return out;
    }
    let (download, installed) = totals(plan);
    line(
        &mut out,
        &format!(
            "Download: {}, installed: {}",
            HumanBytes(download),
            HumanBytes(installed)
        ),
    );
    out
}

/// Returns the transaction as JSON, with totals in bytes.
pub(crate) fn json(plan: &Plan) -> Result<Value> {
    let mut value = serde_json::to_value(plan)?;
    let (download, installed) = totals(plan);
    value["totals"] = json!({ "download-size": download, "installed-size": installed });
    Ok(value)
}

fn totals(plan: &Plan) -> (u64, u64) {
    plan.packages
        .iter()
        .fold((0, 0), |(download, installed), package| {
            (
                download + package.download_size,
                installed + package.installed_size,
            )
        })
}

fn count(packages: usize) -> String {
    if packages == 1 {
        "1 package".to_owned()
    } else {
        format!("{packages} packages")
    }
}

/// Returns one row a package, in columns.
fn table(packages: &[&PlannedPackage]) -> Vec<String> {
    let rows: Vec<[String; 6]> = packages
        .iter()
        .map(|package| {
            let version = match &package.replaces {
                Some(before) => format!("{before} -> {}", package.id.version),
                None => package.id.version.clone(),
            };
            [
                package.id.name.clone(),
                version,
                package.id.architecture.clone(),
                package.repository.clone(),
                HumanBytes(package.download_size).to_string(),
                HumanBytes(package.installed_size).to_string(),
            ]
        })
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a string takes every text");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::plan::{Dormant, PackageId};

    fn package(name: &str, replaces: Option<&str>) -> PlannedPackage {
        PlannedPackage {
            id: PackageId {
                name: name.to_owned(),
                architecture: "amd64".to_owned(),
                version: "3.4".to_owned(),
            },
            replaces: replaces.map(str::to_owned),
            repository: "Debian:13.1/stable".to_owned(),
            uri: None,
            sha256: "0".repeat(64),
            download_size: 1024,
            installed_size: 4096,
            automatic: false,
        }
    }

    #[test]
    fn a_transaction_in_text_and_json() {
        let plan = Plan {
            packages: vec![
                package("htop", None),
                package("libnl-3-200", None),
                package("bash", Some("3.3")),
            ],
            removals: vec![package("nano", None).id],
            dormant: vec![Dormant {
                request: "sed".to_owned(),
                provided_by: "sed 4.9".to_owned(),
            }],
            ..Plan::default()
        };
        let expected = "\
Installing 2 packages:
  htop         3.4  amd64  Debian:13.1/stable  1.00 KiB  4.00 KiB
  libnl-3-200  3.4  amd64  Debian:13.1/stable  1.00 KiB  4.00 KiB
Replacing 1 package:
  bash  3.3 -> 3.4  amd64  Debian:13.1/stable  1.00 KiB  4.00 KiB
Removing 1 package:
  nano 3.4 amd64
Inactive: sed (already provided by sed 4.9)
Download: 3.00 KiB, installed: 12.00 KiB
";
        assert_eq!(text(&plan), expected);
        let value = json(&plan).unwrap();
        assert_eq!(value["totals"]["download-size"], 3072);
        assert_eq!(value["packages"][2]["replaces"], "3.3");
        assert_eq!(text(&Plan::default()), "Empty transaction\n");
    }
}
