//! What the documents and scripts say, held against what is there.

use apt_ostree::report::Event;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Lists all files of the repository that people wrote, relative to its root.
fn files() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_symlink() || [".git", ".cache", "target", "Cargo.lock"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), &mut found);
    assert!(found.len() > 40, "the walk found only {} files", found.len());
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .expect("below the root")
        .display()
        .to_string()
}

/// Returns the targets of the links of a Markdown text, without what stands in code.
fn links(text: &str) -> Vec<&str> {
    let mut fenced = false;
    text.lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        })
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split(')').next())
        .collect()
}

#[test]
fn links_are_found_outside_of_code() {
    assert_eq!(
        links("[a](b.md) and [c](d.md#e)\n```\n[x](y)\n```\n[f](g)"),
        ["b.md", "d.md#e", "g"]
    );
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut dead = Vec::new();
    for path in files()
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
    {
        let text = std::fs::read_to_string(path).expect("a document");
        for link in links(&text) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !path.with_file_name("").join(target).exists() {
                dead.push(format!("{}: {link}", shown(path)));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

#[test]
fn every_document_is_in_the_index() {
    let index = std::fs::read_to_string(root().join("docs/README.md")).expect("the index");
    for entry in std::fs::read_dir(root().join("docs")).expect("docs") {
        let name = entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned();
        assert!(
            name == "README.md" || index.contains(&format!("({name})")),
            "docs/README.md does not name {name}"
        );
    }
}

#[test]
fn the_readme_opens_with_three_sentences_and_two_commands() {
    let text = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let paragraphs: Vec<&str> = text.split("\n\n").collect();
    let sentences = paragraphs[1].matches(". ").count() + paragraphs[1].matches(".\n").count() + 1;
    assert_eq!(sentences, 3, "the first paragraph: {}", paragraphs[1]);
    let commands: Vec<&str> = paragraphs[3]
        .lines()
        .filter(|line| !line.starts_with("```"))
        .map(|line| line.split_whitespace().next().unwrap_or(""))
        .collect();
    assert_eq!(commands, ["hack/demo", "hack/test"]);
}

#[test]
fn scripts_can_be_run_and_stay_small() {
    let mut wrong = Vec::new();
    let mut scripts = 0;
    for path in files() {
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        if !text.starts_with("#!") || text.starts_with("#![") {
            continue;
        }
        scripts += 1;
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
        let limit = if text.lines().next().is_some_and(|line| line.contains("python3")) {
            200
        } else {
            60
        };
        let lines = text.lines().count();
        if mode & 0o111 != 0o111 {
            wrong.push(format!("{} is not executable", shown(&path)));
        }
        if lines > limit {
            wrong.push(format!("{} has {lines} lines, more than {limit}", shown(&path)));
        }
        if text.starts_with("#!/bin/bash") && !text.contains("\nset -euo pipefail\n") {
            wrong.push(format!("{} does not stop at the first error", shown(&path)));
        }
    }
    assert!(scripts > 4, "the walk found only {scripts} scripts");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_package_registry_is_named() {
    // Put together from halves, so that this file names none either.
    let hosts = [
        ("crates", ".io"),
        ("deb.debian", ".org"),
        ("snapshot.debian", ".org"),
        ("registry.npmjs", ".org"),
        ("pypi", ".org"),
        ("rubygems", ".org"),
        ("proxy.golang", ".org"),
    ]
    .map(|(name, domain)| format!("{name}{domain}"));
    for path in files() {
        let bytes = std::fs::read(&path).expect("a file");
        let text = String::from_utf8_lossy(&bytes);
        for host in &hosts {
            assert!(!text.contains(host.as_str()), "{} names {host}", shown(&path));
        }
    }
}

/// Collects the verbs that do something, by their full names, with their long options.
fn verbs(command: &clap::Command, prefix: &str, found: &mut Vec<(String, Vec<String>)>) {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = format!("{prefix}{}", sub.get_name());
        let options = sub
            .get_arguments()
            .filter(|argument| !argument.is_hide_set())
            .filter_map(|argument| argument.get_long().map(|long| format!("--{long}")))
            .collect();
        found.push((name.clone(), options));
        verbs(sub, &format!("{name} "), found);
    }
}

/// Splits a document at its headings: the heading's text and what stands below it.
fn sections(text: &str) -> Vec<(&str, &str)> {
    text.split("\n#")
        .skip(1)
        .map(|part| {
            part.trim_start_matches('#')
                .split_once('\n')
                .unwrap_or((part, ""))
        })
        .map(|(heading, body)| (heading.trim(), body))
        .collect()
}

/// Returns the long options that a text names.
fn options_in(text: &str) -> Vec<String> {
    text.split("`--")
        .skip(1)
        .map(|rest| {
            rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                .next()
                .unwrap_or_default()
        })
        .map(|word| format!("--{word}"))
        .collect()
}

#[test]
fn every_verb_and_option_is_documented_and_nothing_else() {
    let text = std::fs::read_to_string(root().join("docs/commands.md")).expect("docs/commands.md");
    let sections = sections(&text);
    let section = |heading: &str| {
        sections
            .iter()
            .find(|(name, _)| *name == heading)
            .map(|(_, body)| *body)
    };
    let mut shared = options_in(section("Options that every verb takes").expect("the global options"));
    let told_for = |heading: &str| options_in(section(heading).expect("the shared options"));
    let deploying = ["upgrade", "rebase", "deploy"];
    let changing = ["install", "uninstall", "override"];
    let families = [
        (deploying.to_vec(), told_for("Options of the verbs that deploy")),
        (
            changing.to_vec(),
            told_for("Options of the verbs that change packages"),
        ),
        (
            [&deploying[..], &changing[..], &["reset"]].concat(),
            told_for("Options for packages"),
        ),
    ];
    shared.push("--help".to_owned());
    let command = <apt_ostree::cli::Cli as clap::CommandFactory>::command();
    let mut found = Vec::new();
    verbs(&command, "", &mut found);
    assert!(found.len() > 15, "only {} verbs", found.len());

    let mut wrong = Vec::new();
    for (verb, options) in &found {
        let Some(body) = section(verb) else {
            wrong.push(format!("no section `{verb}`"));
            continue;
        };
        let mut told = options_in(body);
        for (verbs, options) in &families {
            if verbs
                .iter()
                .any(|start| verb == start || verb.starts_with(&format!("{start} ")))
            {
                told.extend(options.iter().cloned());
            }
        }
        // What all verbs of a family take may stand in the family's own section.
        if let Some(family) = verb.split_once(' ').and_then(|(family, _)| section(family)) {
            told.extend(options_in(family));
        }
        for option in options.iter().filter(|option| !told.contains(option)) {
            wrong.push(format!("`{verb}` has {option}, and its section does not tell"));
        }
        // What a section quotes from another verb is one of this program's options all the same.
        let known = |option: &String| found.iter().any(|(_, options)| options.contains(option));
        for option in told
            .iter()
            .filter(|option| !shared.contains(option) && !known(option))
        {
            wrong.push(format!(
                "the section `{verb}` tells of {option}, which no verb has"
            ));
        }
    }
    for (heading, _) in &sections {
        let about_a_verb = heading.chars().next().is_some_and(char::is_lowercase);
        if about_a_verb && !found.iter().any(|(verb, _)| verb == heading) {
            wrong.push(format!("there is no verb `{heading}`"));
        }
    }
    assert!(wrong.is_empty(), "docs/commands.md:\n{}", wrong.join("\n"));
}

/// Returns the words in backquotes at the begin of the rows of a table.
fn rows(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(word, _)| word.to_owned())
        .collect()
}

#[test]
fn the_progress_events_are_those_of_the_document() {
    let text = std::fs::read_to_string(root().join("docs/commands.md")).expect("docs/commands.md");
    let sections = sections(&text);
    let (_, body) = sections
        .iter()
        .find(|(name, _)| *name == "Progress as JSON")
        .expect("the section");
    // An unknown event is refused with the names of all events.
    let refused = serde_json::from_str::<Event>(r#"{"type":"?"}"#).expect_err("no such event");
    let refused = refused.to_string();
    let mut events: Vec<&str> = refused
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| *name != "?")
        .collect();
    let mut told = rows(body);
    events.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, events);

    let examples = body.split("```").nth(1).expect("the examples");
    let mut shown = BTreeSet::new();
    for line in examples.lines().filter(|line| line.starts_with('{')) {
        let event: Event = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(serde_json::to_string(&event).expect("JSON"), line);
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let kind = value["type"].as_str().expect("a type").to_owned();
        let row = body
            .lines()
            .find(|row| row.starts_with(&format!("| `{kind}`")))
            .expect("a row");
        for key in value
            .as_object()
            .expect("an object")
            .keys()
            .filter(|key| *key != "type")
        {
            assert!(row.contains(&format!("`{key}`")), "the row of {kind} lacks {key}");
        }
        shown.insert(kind);
    }
    assert_eq!(shown.into_iter().collect::<Vec<_>>(), events);
}

#[test]
fn sections_and_options_are_found() {
    assert_eq!(sections("# a\n\n## b c\nx\n### d\n"), [("b c", "x"), ("d", "")]);
    assert_eq!(
        options_in("`--repo REPO` and `-q`, `--no-wait`"),
        ["--repo", "--no-wait"]
    );
}
