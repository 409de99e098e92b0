//! Manual pages and completion scripts that the program makes of its own command line, held against real readers.

use crate::support::home::Home;
use crate::support::{apt_ostree, run};
use apt_ostree::host::runner::Cmd;
use std::path::Path;

fn generate(kind: &str) -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let into = folder.path().join("deeper");
    let printed = apt_ostree(&Home::new())
        .args(["generate", kind])
        .arg(&into)
        .run_text()
        .unwrap_or_else(|error| panic!("{error:#}"));
    let mut names: Vec<String> = printed
        .lines()
        .map(|line| {
            Path::new(line)
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    let mut there: Vec<String> = std::fs::read_dir(&into)
        .expect("the folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    there.sort();
    assert_eq!(names, there);
    (folder, names)
}

/// Collects the names that pages of the visible verbs must have.
fn pages_of(command: &clap::Command, name: &str, found: &mut Vec<String>) {
    found.push(format!("{name}.8"));
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    for verb in verbs {
        pages_of(verb, &format!("{name}-{}", verb.get_name()), found);
    }
}

#[test]
fn man_and_groff_read_every_page_without_a_warning() {
    let (folder, names) = generate("man");
    let mut expected = Vec::new();
    let program = <apt_ostree::cli::Cli as clap::CommandFactory>::command();
    pages_of(&program, "apt-ostree", &mut expected);
    expected.sort();
    assert_eq!(names, expected);
    assert!(!names.iter().any(|name| name.contains("generate")), "{names:?}");
    let mut wrong = Vec::new();
    for name in &names {
        let path = folder.path().join("deeper").join(name);
        let readers = [
            Cmd::new("man")
                .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
                .arg(&path),
            Cmd::new("groff").args(["-ww", "-man", "-Tutf8", "-Z"]).arg(&path),
        ];
        for reader in readers {
            let output = reader
                .env("LC_ALL", "C.UTF-8")
                .output()
                .expect("the reader of pages");
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            if !output.status.success() || !told.is_empty() {
                wrong.push(format!("{name}: {told}"));
            }
        }
        // What `whatis` and `apropos` know a page by.
        let summary = run("lexgrog", [path.as_os_str()]);
        let title = name.trim_end_matches(".8");
        if !summary.contains(&format!("{title} - ")) {
            wrong.push(format!("{name}: {summary}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_page_tells_what_the_help_tells() {
    let (folder, _) = generate("man");
    let page = folder.path().join("deeper/apt-ostree-kargs.8");
    let text = Cmd::new("man")
        .args(["-l", "-Tascii", "-P", "cat"])
        .arg(&page)
        .env("LC_ALL", "C")
        .env("MANWIDTH", "100")
        .env("GROFF_NO_SGR", "1")
        .run_text()
        .unwrap_or_else(|error| panic!("{error:#}"));
    // Bold on a typewriter: each letter struck twice.
    let mut plain = String::new();
    for letter in text.chars() {
        match letter {
            '\u{8}' => drop(plain.pop()),
            letter => plain.push(letter),
        }
    }
    for told in [
        "APT-OSTREE-KARGS(8)",
        "SYNOPSIS",
        "--append",
        "EXAMPLES",
        "SEE ALSO",
        "apt-ostree(8)",
    ] {
        assert!(plain.contains(told), "no {told} in:\n{plain}");
    }
}

/// Types `words` into a shell that loaded the script, and returns what it offers for the last of them.
fn bash_offers(script: &Path, words: &[&str]) -> Vec<String> {
    let ask = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        function=$(complete -p apt-ostree)
        function=${function##* -F }
        function=${function%% *}
        "$function" apt-ostree "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut command = Cmd::new("bash").args(["--norc", "-c", ask, "bash"]).arg(script);
    for word in words {
        command = command.arg(word);
    }
    let offered = command.run_text().unwrap_or_else(|error| panic!("{error:#}"));
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_verbs_and_options() {
    let (folder, _) = generate("completions");
    let script = folder.path().join("deeper/apt-ostree.bash");
    assert_eq!(bash_offers(&script, &["apt-ostree", "upg"]), ["upgrade"]);
    assert_eq!(
        bash_offers(&script, &["apt-ostree", "upgrade", "--allow"]),
        ["--allow-downgrade"]
    );
    assert_eq!(bash_offers(&script, &["apt-ostree", "image", "pu"]), ["pull"]);
    let verbs = bash_offers(&script, &["apt-ostree", ""]);
    assert!(verbs.iter().any(|verb| verb == "install"), "{verbs:?}");
}

#[test]
fn fish_completes_verbs_and_options() {
    let (folder, _) = generate("completions");
    let script = folder.path().join("deeper/apt-ostree.fish");
    let offers = |line: &str| {
        let ask = format!("source $argv[1]; complete -C '{line}'");
        run(
            "fish",
            [
                "--no-config".as_ref(),
                "-c".as_ref(),
                ask.as_ref(),
                script.as_os_str(),
            ],
        )
    };
    assert!(offers("apt-ostree upg").starts_with("upgrade\t"));
    assert!(offers("apt-ostree upgrade --allow").starts_with("--allow-downgrade\t"));
}

#[test]
fn zsh_completes_verbs_and_options() {
    let (folder, _) = generate("completions");
    // zsh completes only on a terminal; zpty is its own.
    let ask = r#"
        zmodload zsh/zpty
        zpty shell zsh -f -i
        answer() { local piece; screen=; while zpty -r shell piece "*$1*"; do screen+=$piece; [[ $screen == *$1* ]] && break; done }
        zpty -w shell "PS1=; unsetopt zle_bracketed_paste prompt_sp; fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -D; print re''ady"
        answer ready
        zpty -w -n shell $'apt-ostree upg\t'
        answer upgrade
        print -r -- "$screen"
        zpty -w -n shell $'--allow-d\t'
        answer --allow-downgrade
        print -r -- "$screen"
        zpty -d shell
    "#;
    let folder = folder.path().join("deeper");
    let told = run(
        "timeout",
        [
            "60".as_ref(),
            "zsh".as_ref(),
            "-f".as_ref(),
            "-c".as_ref(),
            ask.as_ref(),
            "zsh".as_ref(),
            folder.as_os_str(),
        ],
    );
    assert!(
        told.contains("upgrade") && told.contains("--allow-downgrade"),
        "{told}"
    );
}
