//! The direction of the arrows between the modules of the library.

use std::path::Path;

/// Modules that each top-level module may name with `use crate::`; leaves may name nothing.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "daemon",
            "ops",
            "image",
            "layer",
            "deployment",
            "boot",
            "compose",
            "tree",
            "host",
            "config",
            "fault",
            "report",
        ],
    ),
    (
        "daemon",
        &["ops", "deployment", "config", "host", "fault", "report"],
    ),
    (
        "ops",
        &[
            "image",
            "layer",
            "deployment",
            "boot",
            "compose",
            "tree",
            "host",
            "config",
            "fault",
            "report",
        ],
    ),
    ("image", &["tree", "host", "fault", "report"]),
    (
        "deployment",
        &["layer", "image", "boot", "tree", "host", "fault", "report"],
    ),
    ("layer", &["image", "compose", "tree", "host", "fault", "report"]),
    ("boot", &["host", "fault", "report"]),
    ("compose", &["boot", "tree", "host", "fault", "report"]),
    ("tree", &["host", "fault", "report"]),
    ("host", &["fault", "report"]),
    ("config", &["fault"]),
    ("fault", &[]),
    ("report", &[]),
];

fn walk(path: &Path, visit: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(path).expect("source folder") {
        let path = entry.expect("source entry").path();
        if path.is_dir() {
            walk(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("source file");
            visit(&path, &text);
        }
    }
}

/// Returns the first word behind each `crate::` of the text; comments and strings do not count.
fn named_modules(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_')
                .next()
                .unwrap_or("")
        })
        .filter(|word| word.chars().next().is_some_and(char::is_lowercase))
        .collect()
}

#[test]
fn arrows_point_the_right_way() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut files = 0;
    walk(&source, &mut |path, text| {
        let inside = path.strip_prefix(&source).expect("below src");
        let first = inside
            .components()
            .next()
            .expect("a component")
            .as_os_str()
            .to_string_lossy();
        let module = first.trim_end_matches(".rs").to_owned();
        if ["lib", "main", "bin"].contains(&module.as_str()) {
            return;
        }
        files += 1;
        let allowed = ALLOWED
            .iter()
            .find(|(name, _)| *name == module)
            .map(|(_, allowed)| *allowed);
        let Some(allowed) = allowed else {
            wrong.push(format!(
                "{}: the module `{module}` is not in the table",
                inside.display()
            ));
            return;
        };
        for named in named_modules(text) {
            if named != module && !allowed.contains(&named) {
                wrong.push(format!("{}: names `{named}`", inside.display()));
            }
        }
    });
    assert!(files > 10, "the walk found only {files} files");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_arrow_would_be_seen() {
    assert_eq!(
        named_modules("use crate::cli::render;\n// use crate::ops;"),
        ["cli"]
    );
}

#[test]
fn ops_know_no_command_line_and_print_nothing() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
    walk(&source, &mut |path, text| {
        for word in ["clap::", "zbus::", "stdout()", "println!"] {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    });
}
