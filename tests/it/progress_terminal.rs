//! What a person sees while the program works: real terminals of several kinds, a pipe, and a registry that
//! becomes slow in the middle until it was looked at.

use crate::support::debian_machine::DebianMachine;
use crate::support::layer::Layer;
use crate::support::machine::Machine;
use crate::support::package::Package;
use crate::support::relay::{Behaviour, Relay};
use crate::support::repo::TestRepo;
use crate::support::terminal::{Kind, Terminal};

const WIDE: Kind = Kind {
    columns: 200,
    rows: 24,
    colour: true,
    unicode: true,
};

/// The layers of the image: so large that a registry can become slow in the middle of both.
const NOISE: usize = 6 << 20;

fn layers() -> [Layer; 2] {
    ["usr/share/first", "usr/share/second"].map(|name| Layer::new().noise(name, NOISE))
}

/// A machine whose registry becomes slow in the middle of layers.
fn slow_registry() -> (Machine, Relay) {
    let machine = Machine::deployed();
    machine.publish("2", layers());
    let relay = Relay::start(machine.registry.port());
    machine
        .home
        .insecure(&[&machine.registry.location(), &relay.location()]);
    relay.behave(Behaviour::SlowAfter(2 << 20));
    (machine, relay)
}

/// Returns the lines before the verb's result, which is data and has the width it has.
fn progress_lines(lines: &[String]) -> &[String] {
    let result = |line: &String| line.starts_with("Imported: ") || line.starts_with("Queued for next boot");
    let end = lines.iter().position(result);
    &lines[..end.unwrap_or(lines.len())]
}

/// Fails the test where a line is wider than the terminal, has wrapped, or is not of the locale's characters.
fn assert_neat(terminal: &Terminal, lines: &[String]) {
    let shown = lines.join("\n");
    assert!(
        lines
            .iter()
            .all(|line| line.chars().count() < terminal.kind.columns),
        "{:?}:\n{shown}",
        terminal.kind
    );
    assert!(terminal.kind.unicode || shown.is_ascii(), "{shown}");
}

/// Returns the line that begins with `start`.
fn line<'a>(lines: &'a [String], start: &str) -> &'a str {
    let found = lines.iter().find(|line| line.starts_with(start));
    found.unwrap_or_else(|| panic!("no line begins with `{start}`:\n{}", lines.join("\n")))
}

/// Returns a line with each number as one `N`.
fn without_numbers(line: &str) -> String {
    let mut text = String::new();
    for letter in line.chars() {
        match letter {
            '0'..='9' if text.ends_with('N') => {}
            '0'..='9' => text.push('N'),
            letter => text.push(letter),
        }
    }
    text.replace("N.N", "N")
}

fn look_at_a_fetch(kind: Kind) {
    let (machine, relay) = slow_registry();
    let repo = TestRepo::new();
    let pull = format!(
        "apt-ostree image pull --repo {} {}",
        repo.path().display(),
        relay.reference("os:2")
    );
    let terminal = Terminal::run(&machine.home, kind, &pull);
    // A rate is told when it can be known, and the time that is left where there is room.
    let wanted = if kind.columns > 100 { " left" } else { "/s" };
    let lines = terminal.wait("a rate", |lines| {
        // In the middle of both layers.
        let full = if kind.unicode { "██" } else { "##" };
        lines
            .iter()
            .any(|line| line.starts_with("Fetching layers") && line.contains(wanted) && line.contains(full))
    });
    assert_neat(&terminal, &lines);
    let bar = line(&lines, "Fetching layers");
    assert!(bar.contains(" %  ") && bar.contains("/12 MiB"), "{bar}");
    assert!(bar.contains(if kind.unicode { "█░" } else { "#." }), "{bar}");
    if kind.columns > 100 {
        assert!(bar.ends_with("/3 layers"), "{bar}");
    }
    let items: Vec<_> = lines.iter().filter(|line| line.ends_with("/6.0 MiB")).collect();
    assert_eq!(items.len(), 2, "{lines:#?}");
    let coloured = terminal.with_colours();
    assert_eq!(coloured.contains("\x1b["), kind.colour, "{coloured:?}");
    relay.behave(Behaviour::Pass);

    let (lines, status) = terminal.wait_for_end();
    assert_eq!(status, 0, "{lines:#?}");
    assert_neat(&terminal, progress_lines(&lines));
    let told: Vec<String> = lines.iter().map(|line| without_numbers(line)).collect();
    assert!(
        told[0].starts_with("Fetched the manifest of ostree-unverified-registry:N.N"),
        "{told:#?}"
    );
    assert!(told[0].ends_with(" in N s"), "{told:#?}");
    assert_eq!(
        told[1..4],
        [
            "Fetched N layers, N MiB in N s",
            "Merged layers in N s",
            "Stored the image in N s"
        ],
        "{told:#?}"
    );
    assert!(lines[1].starts_with("Fetched 3 layers, 12 MiB in "), "{lines:#?}");
    repo.assert_sound();
}

#[test]
fn a_fetch_at_80_columns() {
    look_at_a_fetch(Kind { columns: 80, ..WIDE });
}

#[test]
fn a_fetch_at_80_columns_without_colour_and_unicode() {
    look_at_a_fetch(Kind {
        columns: 80,
        colour: false,
        unicode: false,
        ..WIDE
    });
}

#[test]
fn a_fetch_at_200_columns() {
    look_at_a_fetch(WIDE);
}

#[test]
fn a_fetch_at_200_columns_without_colour() {
    look_at_a_fetch(Kind {
        colour: false,
        ..WIDE
    });
}

#[test]
fn a_fetch_at_200_columns_without_unicode() {
    look_at_a_fetch(Kind {
        unicode: false,
        ..WIDE
    });
}

#[test]
fn an_upgrade_leaves_one_line_for_each_step_and_its_result() {
    let machine = Machine::deployed();
    machine.publish("2", layers());
    let kind = Kind { columns: 80, ..WIDE };
    let upgrade = format!(
        "apt-ostree --sysroot {} upgrade",
        machine.sysroot.path().display()
    );
    let terminal = Terminal::run(&machine.home, kind, &upgrade);
    let (lines, status) = terminal.wait_for_end();
    assert_eq!(status, 0, "{lines:#?}");
    assert_neat(&terminal, progress_lines(&lines));
    for start in [
        "Fetched the manifest of ",
        "Fetched ",
        "Merged layers in ",
        "Stored the image in ",
        "Wrote the deployment in ",
    ] {
        line(&lines, start);
    }
    assert_eq!(machine.versions()[0], "2");
}

#[test]
fn a_narrower_terminal_keeps_what_stands_above() {
    let (machine, relay) = slow_registry();
    let repo = TestRepo::new();
    let pull = format!(
        "echo above; apt-ostree image pull --repo {} {}",
        repo.path().display(),
        relay.reference("os:2")
    );
    let terminal = Terminal::run(&machine.home, WIDE, &pull);
    terminal.wait_for("Fetching layers");
    terminal.resize(50);
    let lines = terminal.wait("a bar of 50 columns", |lines| {
        let bars: Vec<_> = lines
            .iter()
            .filter(|line| line.starts_with("Fetching layers"))
            .collect();
        bars.len() == 1 && bars[0].contains("MiB") && bars[0].chars().count() < 50
    });
    assert_eq!(line(&lines, "above"), "above");
    relay.behave(Behaviour::Pass);
    let (lines, status) = terminal.wait_for_end();
    assert_eq!((status, line(&lines, "above")), (0, "above"));
    assert!(
        !lines.iter().any(|line| line.contains("Fetching layers")),
        "{lines:#?}"
    );
}

#[test]
fn an_interrupt_leaves_the_terminal_as_it_was() {
    let (machine, relay) = slow_registry();
    let repo = TestRepo::new();
    let pull = format!(
        "stty -a >before; apt-ostree image pull --repo {} {}",
        repo.path().display(),
        relay.reference("os:2")
    );
    // The shell goes on behind an interrupted program.
    let command = format!(
        "cd {}; trap : INT\n{pull}\nstty -a | cmp - before && echo same modes",
        repo.path().display()
    );
    let terminal = Terminal::run(&machine.home, Kind { columns: 80, ..WIDE }, &command);
    terminal.wait_for("Fetching layers");
    terminal.press("C-c");
    let lines = terminal.wait_for("same modes");
    // What is written next begins at the first column, and the cursor is seen.
    assert!(
        lines
            .iter()
            .any(|line| line == "same modes" || line == "^Csame modes"),
        "{lines:#?}"
    );
    let cursor = terminal.cursor_is_visible();
    assert!(cursor);
    drop(relay);
}

#[test]
fn an_error_takes_the_bars_away() {
    let machine = Machine::deployed();
    let repo = TestRepo::new();
    let pull = format!(
        "apt-ostree image pull --repo {} {}",
        repo.path().display(),
        machine.reference("nothing:here")
    );
    let terminal = Terminal::run(&machine.home, WIDE, &pull);
    let (lines, status) = terminal.wait_for_end();
    assert_eq!(status, 1, "{lines:#?}");
    assert!(lines[0].starts_with("error: "), "{lines:#?}");
    assert!(terminal.with_colours().contains("\x1b[31merror:"));
}

#[test]
fn a_dumb_terminal_and_a_pipe_get_lines_without_control_characters() {
    let machine = Machine::deployed();
    machine.publish("2", layers());
    let repo = TestRepo::new();
    let pull = format!(
        "image pull --repo {} {}",
        repo.path().display(),
        machine.reference("os:2")
    );
    let terminal = Terminal::run(&machine.home, WIDE, &format!("TERM=dumb apt-ostree {pull} | cat"));
    let (lines, status) = terminal.wait_for_end();
    assert_eq!(status, 0, "{lines:#?}");
    line(&lines, "Fetched 3 layers, 12 MiB in ");
    assert!(!terminal.with_colours().contains('\x1b'), "{lines:#?}");

    let output = machine.run(&["upgrade"]);
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{told}");
    assert!(
        told.chars().all(|letter| letter == '\n' || !letter.is_control()),
        "{told:?}"
    );
    let told: Vec<String> = told.lines().map(str::to_owned).collect();
    line(&told, "Fetched the manifest of ");
    line(&told, "Wrote the deployment in ");
    assert!(!told.iter().any(|line| line.starts_with("Fetching")), "{told:#?}");
}

#[test]
fn an_installation_counts_packages_and_scripts() {
    let slow = "#!/bin/sh\nsleep 3\n";
    let host = DebianMachine::new(&[
        Package::new("first-one", "1").depends("second-one"),
        Package::new("second-one", "1").script("postinst", slow),
    ]);
    let install = format!(
        "apt-ostree --sysroot {} install first-one",
        host.sysroot.path().display()
    );
    let kind = Kind { columns: 80, ..WIDE };
    let terminal = Terminal::run(&host.home, kind, &install);
    let lines = terminal.wait("the slow script", |lines| {
        lines
            .iter()
            .any(|line| line.starts_with("  Setting up second-one"))
    });
    assert_neat(&terminal, &lines);
    let bar = line(&lines, "Installing packages");
    assert!(bar.ends_with(" 50 %  0/2 packages  0/1 scripts"), "{bar}");
    let (lines, status) = terminal.wait_for_end();
    assert_eq!(status, 0, "{lines:#?}");
    assert_neat(&terminal, progress_lines(&lines));
    line(&lines, "Fetched 2 packages, ");
    line(&lines, "Installed 2 packages, ran 1 script in ");
    let slow = line(&lines, "  Slow scripts: ");
    assert!(
        slow.starts_with("  Slow scripts: postinst of second-one "),
        "{slow}"
    );
}
