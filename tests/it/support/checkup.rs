//! What `fsck` says about a host that was damaged on purpose.

use super::machine::Machine;
use serde_json::Value;

/// One run of `fsck --json`.
pub struct Checkup {
    pub status: i32,
    pub value: Value,
    pub errors: String,
}

impl Checkup {
    /// Runs `fsck` with these arguments.
    pub fn of(machine: &Machine, arguments: &[&str]) -> Self {
        let output = machine.run(&[&["fsck", "--json"], arguments].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        Self {
            status: output.status.code().expect("fsck ends by itself"),
            value: serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}")),
            errors,
        }
    }

    /// Returns the codes of what is not mended, each once.
    pub fn left(&self) -> Vec<&str> {
        self.codes(false)
    }

    /// Returns the codes of what was mended, each once.
    pub fn mended(&self) -> Vec<&str> {
        self.codes(true)
    }

    fn codes(&self, mended: bool) -> Vec<&str> {
        let findings = self.value["findings"].as_array().expect("a list");
        let mut codes: Vec<&str> = findings
            .iter()
            .filter(|finding| finding["mended"] == mended)
            .map(|finding| finding["code"].as_str().expect("a code"))
            .collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    }

    /// Returns a finding with this code that is not mended.
    pub fn finding(&self, code: &str) -> &Value {
        let findings = self.value["findings"].as_array().expect("a list");
        let found = findings
            .iter()
            .find(|finding| finding["code"] == code && finding["mended"] == false);
        found.unwrap_or_else(|| panic!("no {code} in {:#}", self.value))
    }
}

/// Fails the test unless nothing at all is found, by `ostree fsck` neither.
pub fn assert_clean(machine: &Machine) {
    let checkup = Checkup::of(machine, &[]);
    assert_eq!(
        checkup.value["findings"],
        serde_json::json!([]),
        "{}",
        checkup.errors
    );
    assert_eq!(checkup.status, 0);
    machine.assert_sound();
}

/// Damages a host that was sound, and fails the test unless `fsck` names exactly these codes and changes nothing,
/// `fsck --repair` mends all of it, and nothing is found afterwards.
pub fn mends(machine: &Machine, codes: &[&str], damage: impl FnOnce()) {
    assert_clean(machine);
    damage();
    let before = machine.state();
    let checkup = Checkup::of(machine, &[]);
    assert_eq!(checkup.left(), codes, "{:#}", checkup.value);
    let findings = checkup.value["findings"].as_array().expect("a list");
    let only_notes = findings.iter().all(|finding| finding["severity"] == "note");
    assert_eq!(checkup.status, i32::from(!only_notes), "{:#}", checkup.value);
    assert_eq!(machine.state(), before, "looking writes nothing");
    let checkup = Checkup::of(machine, &["--repair"]);
    assert!(
        checkup.left().is_empty(),
        "{:#}\n{}",
        checkup.value,
        checkup.errors
    );
    assert_eq!(checkup.status, 0);
    for code in codes {
        assert!(checkup.mended().contains(code), "{code}: {:#}", checkup.value);
    }
    assert_clean(machine);
}

/// Damages a host, and fails the test unless `fsck` and `fsck --repair` both name exactly these codes.
pub fn tells(machine: &Machine, codes: &[&str], damage: impl FnOnce()) -> Checkup {
    assert_clean(machine);
    damage();
    assert_eq!(Checkup::of(machine, &[]).left(), codes);
    let checkup = Checkup::of(machine, &["--repair"]);
    assert_eq!(checkup.left(), codes, "{:#}", checkup.value);
    checkup
}
