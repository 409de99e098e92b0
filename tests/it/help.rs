//! What `--help` tells: to be understood by somebody who comes from apt, and held against the command line itself.

use crate::support::apt_ostree;
use crate::support::home::Home;
use clap::{Command, CommandFactory};

/// Collects the visible verbs by their full names.
fn verbs(command: &Command, name: &str, found: &mut Vec<(String, Command)>) {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = format!("{name} {}", verb.get_name());
        found.push((name.clone(), verb.clone()));
        verbs(verb, &name, found);
    }
}

fn all_verbs() -> Vec<(String, Command)> {
    let mut found = Vec::new();
    verbs(&apt_ostree::cli::Cli::command(), "apt-ostree", &mut found);
    assert!(found.len() > 30, "only {} verbs", found.len());
    found
}

/// Returns the words of an example as a shell would; quotes stand around whole words.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace()
        .map(|word| word.trim_matches('\'').to_owned())
        .collect()
}

#[test]
fn every_verb_has_examples_that_parse() {
    let mut wrong = Vec::new();
    for (name, verb) in all_verbs() {
        if verb.has_subcommands() {
            continue;
        }
        let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        let mut lines = help.lines();
        if lines.next() != Some("Examples:") {
            wrong.push(format!("{name} has no examples"));
            continue;
        }
        let lines: Vec<&str> = lines.collect();
        // Where there is nothing to choose there is one way.
        let ways = if verb.get_arguments().next().is_some() {
            2
        } else {
            1
        };
        if lines.len() < ways * 2 {
            wrong.push(format!("{name} has less than {ways} examples"));
        }
        for pair in lines.chunks(2) {
            let [example, meaning] = pair else {
                wrong.push(format!("{name}: `{}` is not explained", pair[0]));
                continue;
            };
            let is_short = pair.iter().all(|line| line.chars().count() <= 80);
            let is_example = example
                .strip_prefix("  ")
                .is_some_and(|line| line.starts_with(&name));
            if !is_short || !is_example || !meaning.starts_with("      ") {
                wrong.push(format!(
                    "{name}: `{example}` or `{meaning}` is not as examples are"
                ));
            }
            if let Err(error) = apt_ostree::cli::Cli::command().try_get_matches_from(words(example)) {
                wrong.push(format!("{example}: {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_verb_says_in_a_line_and_at_length_what_it_does() {
    let mut wrong = Vec::new();
    for (name, verb) in all_verbs() {
        let line = verb.get_about().map(ToString::to_string).unwrap_or_default();
        let long = verb.get_long_about().map(ToString::to_string).unwrap_or_default();
        if line.is_empty() || line.chars().count() > 57 || line.ends_with('.') {
            wrong.push(format!("{name}: `{line}` is no line for the overview"));
        }
        let more = long.strip_prefix(&line).map(str::trim).unwrap_or_default();
        if !more.contains(". ") && !more.ends_with('.') {
            wrong.push(format!("{name}: its help says nothing but `{long}`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_overview_names_each_verb_once_and_ends_with_how_to_begin() {
    for option in ["--help", "-h"] {
        let text = apt_ostree(&Home::new())
            .arg(option)
            .run_text()
            .unwrap_or_else(|error| panic!("{error:#}"));
        for (name, verb) in all_verbs()
            .iter()
            .filter(|(name, _)| name.matches(' ').count() == 1)
        {
            let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
            let rows = text
                .lines()
                .filter(|line| {
                    line.split_whitespace().next() == Some(verb.get_name()) && line.ends_with(&about)
                })
                .count();
            assert_eq!(rows, 1, "{name} in:\n{text}");
        }
        assert!(!text.contains("generate") && !text.contains('\x1b'), "{text}");
        let (before, begin) = text.split_once("Getting started:").expect("how to begin");
        assert!(before.contains("The system:\n  status "), "{text}");
        assert!(begin.trim_end().ends_with("with examples"), "{text}");
    }
}
