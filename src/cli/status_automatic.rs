//! What `status` says about automatic updates: rpm-ostree's line, and what came of the last run.

use crate::cli::status::timestamp;
use crate::deployment::automatic::Ending;
use crate::ops::status::{Automatic, Timer, TimerState};

const TIMER: &str = "apt-ostreed-automatic.timer";
const SERVICE: &str = "apt-ostreed-automatic.service";

/// A line, and whether it tells of trouble.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Key and value.
    pub(crate) text: String,
    /// Whether somebody should look at it.
    pub(crate) alarming: bool,
}

/// Returns the lines; `now` is in seconds since 1970.
pub(crate) fn lines(automatic: &Automatic, verbose: bool, now: u64) -> Vec<Line> {
    let calm = |text: String| Line {
        text,
        alarming: false,
    };
    let Some(policy) = automatic.policy.as_deref().filter(|policy| *policy != "none") else {
        let shown = verbose && automatic.policy.is_some();
        return Vec::from_iter(shown.then(|| calm("AutomaticUpdates: disabled".to_owned())));
    };
    let (timer, alarming) = match &automatic.timer {
        None => (String::new(), false),
        Some(timer) => {
            let (unit, state) = state(timer, now);
            (format!("; {unit}: {state}"), timer.state == TimerState::Failed)
        }
    };
    let mut lines = vec![Line {
        text: format!("AutomaticUpdates: {policy}{timer}"),
        alarming,
    }];
    if let Some(run) = &automatic.last_run {
        lines.push(Line {
            text: format!("  LastRun: {}: {}", timestamp(run.time), ending(&run.ending)),
            alarming: matches!(run.ending, Ending::Failed { .. }),
        });
    }
    lines
}

fn state(timer: &Timer, now: u64) -> (&'static str, String) {
    let text = match (timer.state, timer.last_trigger) {
        (TimerState::Unknown, _) => "unknown state".to_owned(),
        (TimerState::Running, _) => return (SERVICE, "running".to_owned()),
        (TimerState::Failed, _) => return (SERVICE, "last run failed".to_owned()),
        (TimerState::Inactive, _) => "inactive".to_owned(),
        (TimerState::Waiting, None) => "no runs since boot".to_owned(),
        (TimerState::Waiting, Some(time)) => format!("last run {} ago", span(now.saturating_sub(time))),
    };
    (TIMER, text)
}

/// Returns a time as systemd writes it, in its two largest units.
fn span(seconds: u64) -> String {
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, size) in [("d", 86400), ("h", 3600), ("min", 60), ("s", 1)] {
        if rest >= size {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    parts.truncate(2);
    if parts.is_empty() {
        "0s".to_owned()
    } else {
        parts.join(" ")
    }
}

fn ending(ending: &Ending) -> String {
    match ending {
        Ending::NothingNew => "nothing new".to_owned(),
        Ending::Available => "an update is available".to_owned(),
        Ending::Staged { waits: None } => "staged".to_owned(),
        Ending::Staged { waits: Some(waits) } => format!("staged; {waits}"),
        Ending::Applied => "applied".to_owned(),
        Ending::Skipped { why } => format!("skipped: {why}"),
        Ending::Failed { message } => format!("failed: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::automatic::LastRun;

    fn texts(automatic: &Automatic, verbose: bool) -> Vec<String> {
        let lines = lines(automatic, verbose, 100_000);
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn the_line_is_rpm_ostrees() {
        let with = |policy: &str, timer: Option<(TimerState, Option<u64>)>| Automatic {
            policy: Some(policy.to_owned()),
            timer: timer.map(|(state, last_trigger)| Timer { state, last_trigger }),
            last_run: None,
        };
        assert!(texts(&with("none", None), false).is_empty());
        assert_eq!(texts(&with("none", None), true), ["AutomaticUpdates: disabled"]);
        assert!(texts(&Automatic::default(), true).is_empty());
        assert_eq!(texts(&with("stage", None), false), ["AutomaticUpdates: stage"]);
        for (state, last_trigger, expected) in [
            (
                TimerState::Waiting,
                Some(100_000 - 16_325),
                "timer: last run 4h 32min ago",
            ),
            (TimerState::Waiting, Some(100_000), "timer: last run 0s ago"),
            (TimerState::Waiting, None, "timer: no runs since boot"),
            (TimerState::Inactive, None, "timer: inactive"),
            (TimerState::Unknown, None, "timer: unknown state"),
            (TimerState::Running, Some(1), "service: running"),
            (TimerState::Failed, Some(1), "service: last run failed"),
        ] {
            let expected = format!("AutomaticUpdates: stage; apt-ostreed-automatic.{expected}");
            assert_eq!(
                texts(&with("stage", Some((state, last_trigger))), false),
                [expected]
            );
        }
        assert!(lines(&with("stage", Some((TimerState::Failed, None))), false, 0)[0].alarming);
    }

    #[test]
    fn the_last_run_is_told() {
        let automatic = Automatic {
            policy: Some("apply".to_owned()),
            timer: None,
            last_run: Some(LastRun {
                time: 1_700_000_000,
                policy: "apply".to_owned(),
                ending: Ending::Skipped {
                    why: "the connection is metered".to_owned(),
                },
            }),
        };
        assert_eq!(
            texts(&automatic, false)[1],
            "  LastRun: 2023-11-14T22:13:20Z: skipped: the connection is metered"
        );
    }
}
