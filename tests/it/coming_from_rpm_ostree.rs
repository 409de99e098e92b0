//! The table "Coming from rpm-ostree" of docs/commands.md, held against the program.

use crate::support::apt_ostree;
use crate::support::home::Home;
use crate::support::repo::TestSysroot;
use std::path::Path;

/// What the table says of a command.
#[derive(Debug, PartialEq, Eq)]
enum Here {
    Accepted,
    Refused,
}

/// Returns the words of each command of the table with what it says of them.
fn table() -> Vec<(Vec<String>, Here)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    let text = std::fs::read_to_string(path).expect("docs/commands.md");
    let (_, section) = text.split_once("## Coming from rpm-ostree").expect("the section");
    let rows = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let mut found = Vec::new();
    for row in rows {
        let here = match row[2] {
            "same" | "differs" | "ignored" => || Here::Accepted,
            "refused" => || Here::Refused,
            other => panic!("`{other}` is no word of the table: {row:?}"),
        };
        // Between backticks stands what is quoted.
        for command in row[1].split('`').skip(1).step_by(2) {
            let words = command.split(' ').map(|word| word.replace('"', "")).collect();
            found.push((words, here()));
        }
    }
    found
}

#[test]
fn every_command_of_rpm_ostree_is_what_the_table_says() {
    let (home, sysroot) = (Home::new(), TestSysroot::new());
    let mut wrong = Vec::new();
    let table = table();
    assert!(table.len() > 150, "only {} commands", table.len());
    for (words, here) in &table {
        let command = <apt_ostree::cli::Cli as clap::CommandFactory>::command();
        let program = std::iter::once("apt-ostree".to_owned());
        let parsed = command.try_get_matches_from(program.chain(words.iter().cloned()));
        let accepted = match &parsed {
            Ok(_) => true,
            Err(error) => !error.use_stderr(),
        };
        match here {
            Here::Accepted if accepted => {}
            Here::Accepted => wrong.push(format!("{words:?} is not accepted")),
            // Some refusals come behind the parser, and before anything is looked at.
            Here::Refused => {
                let output = apt_ostree(&home)
                    .arg("--sysroot")
                    .arg(sysroot.path())
                    .args(words)
                    .output()
                    .expect("the program starts");
                let told = String::from_utf8_lossy(&output.stderr).into_owned();
                if output.status.code() != Some(2) || !told.starts_with("error: ") {
                    wrong.push(format!("{words:?} is not refused ({}): {told}", output.status));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
