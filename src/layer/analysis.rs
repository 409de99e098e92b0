//! Looks through maintainer scripts, before they run, for what cannot work in an image that does not run.
//!
//! Only commands that always run and whose failure ends the script count: what a script does where a system is
//! running, or shrugs off, is right as it is.

use super::deb::ControlFiles;
use super::shell::{self, Command};
use crate::layer::plan::FetchedPackage;

/// Scripts that run when a package is installed.
const SCRIPTS: &[&str] = &["config", "preinst", "postinst"];

/// Something in a script that cannot work offline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The package's name.
    pub package: String,
    /// The script's name, for example `postinst`.
    pub script: String,
    /// The line, from 1.
    pub line: usize,
    /// The line's text.
    pub text: String,
    /// The rule's name.
    pub rule: &'static str,
    /// Why it cannot work.
    pub explanation: &'static str,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}.{} line {}: `{}` {}",
            self.package, self.script, self.line, self.text, self.explanation
        )
    }
}

struct Rule {
    name: &'static str,
    explanation: &'static str,
    matches: fn(&Command) -> bool,
}

const RULES: &[Rule] = &[
    Rule {
        name: "service",
        explanation: "acts on a running system, and there is none",
        matches: |command| {
            let verbs = [
                "start",
                "stop",
                "restart",
                "try-restart",
                "reload",
                "reload-or-restart",
                "try-reload-or-restart",
                "daemon-reexec",
                "isolate",
                "kill",
            ];
            let verb = command.words.iter().skip(1).find(|word| !word.starts_with('-'));
            is(command, &["systemctl"]) && verb.is_some_and(|verb| verbs.contains(&verb.as_str()))
        },
    },
    Rule {
        name: "kernel-setting",
        explanation: "changes the running kernel, and the image has none; use a file in /usr/lib/sysctl.d",
        matches: |command| {
            let loads = |word: &String| {
                matches!(word.as_str(), "-p" | "--system" | "-w" | "--load" | "--write") || word.contains('=')
            };
            is(command, &["sysctl"]) && command.words.iter().skip(1).any(loads)
        },
    },
    Rule {
        name: "kernel-file",
        explanation: "writes below /proc or /sys, which only the running kernel has",
        matches: |command| {
            let written = command.writes.iter();
            let copied = command
                .words
                .iter()
                .skip(1)
                .filter(|_| is(command, &["tee", "cp", "install", "dd"]));
            written
                .chain(copied)
                .map(|path| path.trim_start_matches("of="))
                .any(|path| ["/proc/", "/sys/"].iter().any(|place| path.starts_with(place)))
        },
    },
    Rule {
        name: "device-events",
        explanation: "needs the udev of a running system",
        matches: |command| {
            is(command, &["udevadm"])
                && command
                    .words
                    .iter()
                    .skip(1)
                    .any(|word| word == "trigger" || word == "settle")
        },
    },
    Rule {
        name: "kernel-module",
        explanation: "loads or removes modules of the running kernel; use a file in /usr/lib/modules-load.d",
        matches: |command| is(command, &["modprobe", "insmod", "rmmod"]),
    },
    Rule {
        name: "mount",
        explanation: "may not mount; use a mount unit",
        matches: |command| {
            is(command, &["mount", "umount", "swapon", "swapoff", "losetup"]) && command.words.len() > 1
        },
    },
    Rule {
        name: "network",
        explanation: "needs the network, which scripts do not have",
        matches: |command| {
            let has = |wanted: &[&str]| {
                command
                    .words
                    .iter()
                    .skip(1)
                    .any(|word| wanted.contains(&word.as_str()))
            };
            is(command, &["curl", "wget", "ftp", "scp", "rsync"])
                || is(command, &["apt", "apt-get", "aptitude"]) && has(&["update", "install", "upgrade"])
                || is(command, &["git"]) && has(&["clone", "fetch", "pull"])
                || is(command, &["pip", "pip3", "npm", "gem", "snap", "flatpak"]) && has(&["install"])
        },
    },
    Rule {
        name: "question",
        explanation: "asks the user, and nobody answers; packages ask through debconf",
        matches: |command| {
            let from_terminal = command.reads.iter().any(|file| file == "/dev/tty");
            is(command, &["whiptail", "dialog"]) || is(command, &["read"]) && from_terminal
        },
    },
    Rule {
        name: "bus",
        explanation: "calls a service over D-Bus, and none runs",
        matches: |command| is(command, &["dbus-send", "busctl", "gdbus", "qdbus"]),
    },
    Rule {
        name: "power",
        explanation: "restarts or halts the machine",
        matches: |command| {
            is(command, &["reboot", "shutdown", "poweroff", "halt"])
                || is(command, &["systemctl"])
                    && command
                        .words
                        .iter()
                        .any(|word| matches!(word.as_str(), "reboot" | "poweroff" | "halt"))
        },
    },
    Rule {
        name: "boot-loader",
        explanation: "writes the boot loader, which images do not hold",
        matches: |command| {
            is(
                command,
                &["grub-install", "update-grub", "grub-mkconfig", "bootctl"],
            )
        },
    },
];

/// Looks through the scripts of all packages, whose control files are given in the same order; an empty list is
/// good news.
pub(crate) fn analyse(packages: &[FetchedPackage], control: &[ControlFiles]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (package, files) in packages.iter().zip(control) {
        for script in SCRIPTS {
            if let Some(text) = files.get(*script) {
                findings.extend(analyse_script(
                    &package.id.name,
                    script,
                    &String::from_utf8_lossy(text),
                ));
            }
        }
    }
    findings
}

/// Looks through one script.
pub fn analyse_script(package: &str, script: &str, text: &str) -> Vec<Finding> {
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    for command in commands(text) {
        if command.guarded || command.may_fail {
            continue;
        }
        if let Some(rule) = RULES.iter().find(|rule| (rule.matches)(&command)) {
            let line = lines.get(command.line - 1).copied().unwrap_or_default();
            findings.push(Finding {
                package: package.to_owned(),
                script: script.to_owned(),
                line: command.line,
                text: line.trim().to_owned(),
                rule: rule.name,
                explanation: rule.explanation,
            });
        }
    }
    findings
}

/// Returns the commands of a script: of the shell's own, or those another language starts in quotes.
fn commands(text: &str) -> Vec<Command> {
    let interpreter = text.lines().next().unwrap_or_default();
    let words = interpreter.trim_start_matches("#!").split_whitespace();
    let is_shell = words
        .take(2)
        .any(|word| matches!(word.rsplit('/').next(), Some("sh" | "dash" | "bash")));
    if is_shell {
        return shell::commands(text);
    }
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.trim_start();
        let starts = ["system", "exec", "subprocess", "spawn", "popen"];
        if code.starts_with('#') || !starts.iter().any(|word| code.contains(word)) {
            continue;
        }
        let words: Vec<_> = code
            .split(['"', '\''])
            .enumerate()
            .filter(|(index, _)| index % 2 == 1)
            .map(|(_, inside)| inside)
            .collect();
        for mut command in shell::commands(&words.join(" ")) {
            command.line = number + 1;
            found.push(command);
        }
    }
    found
}

/// Returns whether the command's program has one of these names.
fn is(command: &Command, names: &[&str]) -> bool {
    let program = command.words[0].rsplit('/').next().unwrap_or_default();
    names.contains(&program)
}
