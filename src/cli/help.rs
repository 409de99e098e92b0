//! The overview that `apt-ostree --help` gives: the verbs in groups, what people need first comes first.

use clap::Command;
use clap::builder::StyledStr;

/// The groups in their order. Verbs that are in none stand in the last one.
const GROUPS: [(&str, &[&str]); 6] = [
    (
        "The system",
        &[
            "status", "upgrade", "cancel", "rollback", "rebase", "deploy", "reset",
        ],
    ),
    (
        "Packages",
        &[
            "install",
            "uninstall",
            "override",
            "search",
            "info",
            "refresh-md",
            "apply-live",
        ],
    ),
    ("Kernel and boot", &["kargs", "initramfs", "initramfs-etc"]),
    (
        "Deployments",
        &[
            "log",
            "diff",
            "pin",
            "unpin",
            "cleanup",
            "finalize-deployment",
            "usroverlay",
        ],
    ),
    (
        "Images and disks",
        &["image", "history", "db", "container", "provision"],
    ),
    ("The program", &[]),
];

/// Returns the program's command line with its verbs in groups.
///
/// clap lists all verbs under one heading, so the list is part of the template here.
pub(super) fn grouped(program: Command) -> Command {
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{}\n{}\n{{options}}{{after-help}}",
        groups(&program),
        heading("Options"),
    );
    program.help_template(StyledStr::from(template))
}

fn groups(program: &Command) -> String {
    let verbs: Vec<&Command> = program
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set())
        .collect();
    let width = verbs.iter().map(|verb| verb.get_name().len()).max().unwrap_or(0);
    let is_grouped = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let mut text = String::new();
    for (title, names) in GROUPS {
        text.push_str(&format!("\n{}\n", heading(title)));
        let named = names.iter().filter_map(|name| program.find_subcommand(name));
        let others = verbs
            .iter()
            .copied()
            .filter(|verb| names.is_empty() && !is_grouped(verb.get_name()));
        for verb in named.chain(others) {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            text.push_str(&format!("  {:width$}  {about}\n", verb.get_name()));
        }
    }
    text
}

/// Returns a heading as clap writes it; what prints it drops the colours where they are not wanted.
fn heading(title: &str) -> String {
    format!("\x1b[1m\x1b[4m{title}:\x1b[0m")
}
