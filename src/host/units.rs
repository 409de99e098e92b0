//! The state of systemd's units, as `systemctl show` tells it.

use crate::host::runner::Cmd;
use anyhow::Result;
use std::collections::BTreeMap;

/// Properties of one unit.
pub type Properties = BTreeMap<String, String>;

/// Returns these properties of each unit, in the order of `units`.
///
/// Times are `@` and seconds since 1970. Fails where no systemd runs.
pub fn show(units: &[&str], properties: &[&str]) -> Result<Vec<Properties>> {
    let text = Cmd::new("systemctl")
        .args(["show", "--timestamp=unix"])
        .arg(format!("--property={}", properties.join(",")))
        .arg("--")
        .args(units)
        .run_text()?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<Properties> {
    text.split("\n\n")
        .map(|unit| {
            unit.lines()
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_apart_by_an_empty_line() {
        let text =
            "ActiveState=active\nLastTriggerUSec=@1700000000\n\nActiveState=inactive\nResult=success\n";
        let units = parse(text);
        assert_eq!(units.len(), 2);
        assert_eq!(units[0]["LastTriggerUSec"], "@1700000000");
        assert_eq!((units[1].len(), units[1]["Result"].as_str()), (2, "success"));
    }
}
