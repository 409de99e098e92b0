//! The keys: their names, how each is set and how it is shown. One table, so that no key is known at one place only.

use super::fragments::Fragment;
use super::place::{self, Mistake};
use super::window::{self, Window};
use super::{Config, Effective, Metered, Policy};
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;
use toml::Value as Shown;
use toml::de::{DeTable, DeValue};

/// One key.
pub(super) struct Key {
    /// Table and key, for example `daemon.idle-exit`.
    pub(super) name: &'static str,
    set: fn(&mut Config, &Value<'_>) -> Result<(), Wrong>,
    /// Returns the value as a fragment would say it.
    pub(super) show: fn(&Config) -> Shown,
}

type Value<'a> = Spanned<DeValue<'a>>;

/// What is wrong with a value, and where in the text.
struct Wrong {
    span: Range<usize>,
    text: String,
}

/// All keys, in the order of the documentation.
pub(super) const KEYS: &[Key] = &[
    Key {
        name: "daemon.idle-exit",
        set: |config, value| {
            config.daemon.idle_exit = match text(value)? {
                "never" => None,
                _ => match duration(value)? {
                    Duration::ZERO => {
                        return Err(wrong(
                            value,
                            "a service that ends at once serves nobody; `never` keeps it",
                        ));
                    }
                    time => Some(time),
                },
            };
            Ok(())
        },
        show: |config| match config.daemon.idle_exit {
            None => Shown::from("never"),
            Some(time) => show_duration(time),
        },
    },
    Key {
        name: "automatic-updates.policy",
        set: |config, value| {
            config.automatic_updates.policy = choice(value, &Policy::NAMES)?;
            Ok(())
        },
        show: |config| Shown::from(config.automatic_updates.policy.name()),
    },
    Key {
        name: "automatic-updates.random-delay",
        set: |config, value| {
            config.automatic_updates.random_delay = duration(value)?;
            Ok(())
        },
        show: |config| show_duration(config.automatic_updates.random_delay),
    },
    Key {
        name: "automatic-updates.metered",
        set: |config, value| {
            config.automatic_updates.metered = choice(value, &METERED)?;
            Ok(())
        },
        show: |config| Shown::from(name_of(&METERED, config.automatic_updates.metered)),
    },
    Key {
        name: "automatic-updates.maintenance-window",
        set: |config, value| {
            config.automatic_updates.maintenance_window = windows(value)?;
            Ok(())
        },
        show: |config| show_windows(&config.automatic_updates.maintenance_window),
    },
    Key {
        name: "automatic-updates.download-window",
        set: |config, value| {
            config.automatic_updates.download_window = windows(value)?;
            Ok(())
        },
        show: |config| show_windows(&config.automatic_updates.download_window),
    },
    Key {
        name: "automatic-updates.reboot-when-users-are-logged-in",
        set: |config, value| {
            config.automatic_updates.reboot_when_users_are_logged_in = truth(value)?;
            Ok(())
        },
        show: |config| Shown::from(config.automatic_updates.reboot_when_users_are_logged_in),
    },
    Key {
        name: "layering.locked",
        set: |config, value| {
            config.layering.locked = truth(value)?;
            Ok(())
        },
        show: |config| Shown::from(config.layering.locked),
    },
    Key {
        name: "countme.enabled",
        set: |config, value| {
            config.countme.enabled = truth(value)?;
            Ok(())
        },
        show: |config| Shown::from(config.countme.enabled),
    },
    Key {
        name: "countme.url",
        set: |config, value| {
            config.countme.url = address(value)?;
            Ok(())
        },
        show: |config| Shown::from(config.countme.url.as_str()),
    },
];

const METERED: [(&str, Metered); 2] = [("skip", Metered::Skip), ("allow", Metered::Allow)];

/// The units of a duration, in seconds.
const UNITS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 3600), ("d", 86400)];

/// No setting is about a longer time: a year.
const LONGEST: u64 = 366 * 86400;

/// Takes over what a fragment sets; each mistake in it is noted, and what is right beside it is taken all the same.
pub(super) fn apply(fragment: &Fragment, effective: &mut Effective, mistakes: &mut Vec<Mistake>) {
    let mut mistake = |span: Option<Range<usize>>, text: String| {
        mistakes.push(Mistake {
            file: fragment.file.clone(),
            place: span.map(|span| place::of(&fragment.text, span.start)),
            text,
        });
    };
    let (document, errors) = DeTable::parse_recoverable(&fragment.text);
    if !errors.is_empty() {
        // What can be made out between them might be meant otherwise.
        for error in errors {
            mistake(error.span(), error.message().replace('\n', ", "));
        }
        return;
    }
    for (table, content) in document.get_ref() {
        let name = table.get_ref().as_ref();
        let known: Vec<&Key> = KEYS.iter().filter(|key| key.table() == name).collect();
        if known.is_empty() {
            let text = format!("there is no table `{name}`; there is: {}", tables().join(", "));
            mistake(Some(table.span()), text);
            continue;
        }
        let DeValue::Table(content) = content.get_ref() else {
            mistake(
                Some(content.span()),
                format!("`{name}` is a table: write `[{name}]`"),
            );
            continue;
        };
        for (key, value) in content {
            let Some(found) = known.iter().find(|known| known.key() == key.get_ref().as_ref()) else {
                let names: Vec<&str> = known.iter().map(|key| key.key()).collect();
                let text = format!(
                    "there is no key `{}` in [{name}]; there is: {}",
                    key.get_ref(),
                    names.join(", ")
                );
                mistake(Some(key.span()), text);
                continue;
            };
            match (found.set)(&mut effective.config, value) {
                Ok(()) => {
                    effective.sources.insert(found.name, fragment.file.clone());
                }
                Err(wrong) => mistake(Some(wrong.span), format!("{}: {}", found.name, wrong.text)),
            }
        }
    }
}

/// Returns the mistakes that lie between settings which are right by themselves.
pub(super) fn contradictions(effective: &Effective) -> Vec<Mistake> {
    let countme = &effective.config.countme;
    let mut mistakes = Vec::new();
    if let (true, true, Some(file)) = (
        countme.enabled,
        countme.url.is_empty(),
        effective.sources.get("countme.enabled"),
    ) {
        mistakes.push(Mistake {
            file: file.clone(),
            place: None,
            text: "countme.enabled: no `countme.url` says where to be counted".to_owned(),
        });
    }
    mistakes
}

impl Key {
    fn table(&self) -> &'static str {
        self.name.split('.').next().unwrap_or_default()
    }

    fn key(&self) -> &'static str {
        self.name.split('.').next_back().unwrap_or_default()
    }
}

fn tables() -> Vec<String> {
    let mut tables: Vec<String> = KEYS.iter().map(|key| format!("[{}]", key.table())).collect();
    tables.dedup();
    tables
}

fn wrong(value: &Value<'_>, text: impl Into<String>) -> Wrong {
    Wrong {
        span: value.span(),
        text: text.into(),
    }
}

fn text<'a>(value: &'a Value<'_>) -> Result<&'a str, Wrong> {
    let found = value.get_ref();
    found.as_str().ok_or_else(|| {
        wrong(
            value,
            format!("text in quotes is wanted, and this is {}", kind(found)),
        )
    })
}

fn truth(value: &Value<'_>) -> Result<bool, Wrong> {
    let found = value.get_ref();
    found.as_bool().ok_or_else(|| {
        wrong(
            value,
            format!("`true` or `false` is wanted, and this is {}", kind(found)),
        )
    })
}

fn choice<T: Copy>(value: &Value<'_>, names: &[(&'static str, T)]) -> Result<T, Wrong> {
    let text = text(value)?;
    let found = names.iter().find(|(name, _)| *name == text);
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        wrong(value, format!("`{text}` is none of: {}", names.join(", ")))
    })
}

fn name_of<T: Copy + PartialEq>(names: &[(&'static str, T)], wanted: T) -> &'static str {
    let found = names.iter().find(|(_, choice)| *choice == wanted);
    found.map_or("", |(name, _)| name)
}

/// Reads a time such as `90s`, `1h 30min` or `2d`.
fn duration(value: &Value<'_>) -> Result<Duration, Wrong> {
    let text = text(value)?;
    let mut rest = text.trim();
    let mut seconds = 0u64;
    let form = || {
        wrong(
            value,
            format!("`{text}` is no time: write for example `90s`, `15min`, `1h 30min` or `2d`"),
        )
    };
    if rest.is_empty() {
        return Err(form());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(form)?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(form)?;
        let number: u64 = number.parse().map_err(|_| form())?;
        seconds = number.saturating_mul(unit.1).saturating_add(seconds);
        rest = tail.trim_start();
    }
    if seconds > LONGEST {
        return Err(wrong(value, format!("`{text}` is longer than a year")));
    }
    Ok(Duration::from_secs(seconds))
}

fn show_duration(time: Duration) -> Shown {
    let mut rest = time.as_secs();
    let mut parts = Vec::new();
    for (unit, seconds) in UNITS.iter().rev() {
        if rest >= *seconds {
            parts.push(format!("{}{unit}", rest / seconds));
            rest %= seconds;
        }
    }
    Shown::from(if parts.is_empty() {
        "0s".to_owned()
    } else {
        parts.join(" ")
    })
}

fn windows(value: &Value<'_>) -> Result<Vec<Window>, Wrong> {
    let DeValue::Array(list) = value.get_ref() else {
        return Err(wrong(
            value,
            format!(
                "a list such as [\"Sat,Sun 02:00-05:00\"] is wanted, and this is {}",
                kind(value.get_ref())
            ),
        ));
    };
    list.iter()
        .map(|entry| window::parse(text(entry)?).map_err(|reason| wrong(entry, reason)))
        .collect()
}

fn show_windows(windows: &[Window]) -> Shown {
    windows.iter().map(ToString::to_string).collect::<Vec<_>>().into()
}

fn address(value: &Value<'_>) -> Result<String, Wrong> {
    let text = text(value)?;
    let host = text.strip_prefix("https://");
    let plain = text.chars().all(|c| c.is_ascii_graphic() && c != '#');
    match host {
        _ if text.is_empty() => {}
        Some(host) if plain && !host.is_empty() && !host.starts_with(['/', '?']) => {}
        _ => return Err(wrong(value, format!("`{text}` is no `https://` address"))),
    }
    Ok(text.to_owned())
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Effective, String> {
        let fragment = Fragment {
            file: "/x.toml".into(),
            text: text.to_owned(),
        };
        let (mut effective, mut mistakes) = (Effective::default(), Vec::new());
        apply(&fragment, &mut effective, &mut mistakes);
        mistakes.extend(contradictions(&effective));
        if mistakes.is_empty() {
            return Ok(effective);
        }
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        Err(lines.join("\n"))
    }

    #[test]
    fn every_key_takes_what_it_shows() {
        let default = Effective::default();
        for setting in default.settings() {
            let (table, key) = setting.key.split_once('.').unwrap();
            let found = load(&format!("[{table}]\n{key} = {}\n", setting.value)).unwrap();
            assert_eq!(found.config, default.config, "{}", setting.key);
            assert_eq!(found.sources.len(), 1, "{}", setting.key);
        }
    }

    #[test]
    fn times() {
        for (text, seconds) in [
            ("90s", 90),
            ("1h 30min", 5400),
            ("1h30min", 5400),
            (" 2d ", 172_800),
            ("0s", 0),
        ] {
            let found = load(&format!("[automatic-updates]\nrandom-delay = \"{text}\"")).unwrap();
            assert_eq!(
                found.config.automatic_updates.random_delay,
                Duration::from_secs(seconds),
                "{text}"
            );
        }
        for text in [
            "",
            "5",
            "h",
            "5 h",
            "-1s",
            "1.5h",
            "1 year",
            "99999999999999999999s",
            "367d",
            "1h,2min",
        ] {
            let wrong = load(&format!("[automatic-updates]\nrandom-delay = \"{text}\"")).unwrap_err();
            assert!(
                wrong.starts_with("/x.toml:2:16: automatic-updates.random-delay: "),
                "{wrong}"
            );
        }
    }

    #[test]
    fn each_mistake_has_its_place() {
        for (text, expected) in [
            (
                "[daemon]\nidle = \"1s\"",
                "/x.toml:2:1: there is no key `idle` in [daemon]; there is: idle-exit",
            ),
            (
                "\n[demon]",
                "/x.toml:2:2: there is no table `demon`; there is: [daemon], [automatic-updates], [layering], [countme]",
            ),
            (
                "daemon = 1",
                "/x.toml:1:10: `daemon` is a table: write `[daemon]`",
            ),
            (
                "[daemon]\nidle-exit = 60",
                "/x.toml:2:13: daemon.idle-exit: text in quotes is wanted, and this is a number",
            ),
            (
                "[daemon]\nidle-exit = \"0s\"",
                "/x.toml:2:13: daemon.idle-exit: a service that ends at once serves nobody; `never` keeps it",
            ),
            (
                "[layering]\nlocked = \"yes\"",
                "/x.toml:2:10: layering.locked: `true` or `false` is wanted, and this is text",
            ),
            (
                "automatic-updates.policy = \"all\"",
                "/x.toml:1:28: automatic-updates.policy: `all` is none of: none, check, stage, apply",
            ),
            (
                "[automatic-updates]\nmaintenance-window = [\n  \"Sat 02:00-03:00\",\n  \"Sat\",\n]",
                "/x.toml:4:3: automatic-updates.maintenance-window: `Sat` is no window: write for example `Sat,Sun 02:00-05:00` or `Mon..Fri 23:00-04:00`",
            ),
            (
                "[countme]\nurl = \"http://example.org/\"",
                "/x.toml:2:7: countme.url: `http://example.org/` is no `https://` address",
            ),
            (
                "[countme]\nenabled = true",
                "/x.toml: countme.enabled: no `countme.url` says where to be counted",
            ),
        ] {
            assert_eq!(load(text).unwrap_err(), expected);
        }
        let wrong = load("[daemon\nidle-exit = \"1s\"\n[layering]\nlocked = maybe\n").unwrap_err();
        assert!(
            wrong.contains("/x.toml:1:") && wrong.contains("/x.toml:4:"),
            "{wrong}"
        );
    }

    #[test]
    fn addresses() {
        for text in ["", "https://example.org", "https://example.org:8/count?a=b"] {
            assert!(load(&format!("[countme]\nurl = \"{text}\"")).is_ok(), "{text}");
        }
        for text in [
            "https://",
            "https:///x",
            "https://a b",
            "https://a#b",
            "file:///etc/passwd",
            "https://?x",
        ] {
            assert!(load(&format!("[countme]\nurl = \"{text}\"")).is_err(), "{text}");
        }
    }
}
