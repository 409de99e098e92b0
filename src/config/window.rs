//! Windows of the week, in local time: `Sat,Sun 02:00-05:00`, `Mon..Fri 23:00-04:00`, `02:00-05:00`.

use std::fmt;

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// Minutes of a week.
const WEEK: u16 = 7 * DAY;

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// A stretch of time that comes back every week; one that crosses midnight belongs to the day it begins on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// From Monday on.
    days: [bool; 7],
    /// Minutes since midnight.
    start: u16,
    /// How many minutes it is open, at most a day.
    length: u16,
}

/// A minute of the week in local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Minutes since Monday, 00:00.
    minute: u16,
}

impl Moment {
    /// Returns a minute of the week; `day` is 0 on a Monday, and what exceeds its range is wrapped.
    pub fn new(day: u16, hour: u16, minute: u16) -> Self {
        let minutes = u32::from(day) * u32::from(DAY) + u32::from(hour) * 60 + u32::from(minute);
        Self {
            minute: u16::try_from(minutes % u32::from(WEEK)).unwrap_or(0),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = DAYS[usize::from(self.minute / DAY)];
        write!(f, "{day} {}", Clock(self.minute % DAY))
    }
}

impl Window {
    /// Returns how many minutes ago, at this moment, it opened on each of its days; the week is a circle.
    fn since_opened(self, now: Moment) -> impl Iterator<Item = u16> {
        (0u16..7)
            .filter(move |day| self.days[usize::from(*day)])
            .map(move |day| (now.minute + WEEK - (day * DAY + self.start)) % WEEK)
    }

    /// Returns whether it is open.
    pub fn is_open(self, now: Moment) -> bool {
        self.since_opened(now).any(|since| since < self.length)
    }
}

/// Returns whether one of the windows is open; without any, every time is as good.
pub fn is_open(windows: &[Window], now: Moment) -> bool {
    windows.is_empty() || windows.iter().any(|window| window.is_open(now))
}

/// Returns when the next of the windows opens: minutes from now, and the moment; none where there is no window.
pub fn next_opening(windows: &[Window], now: Moment) -> Option<(u16, Moment)> {
    let next = windows
        .iter()
        .flat_map(|window| window.since_opened(now))
        .map(|since| WEEK - since)
        .min()?;
    let minute = (now.minute + next) % WEEK;
    Some((next, Moment { minute }))
}

/// Reads a window; the error tells what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Window, String> {
    let form = || {
        format!("`{text}` is no window: write for example `Sat,Sun 02:00-05:00` or `Mon..Fri 23:00-04:00`")
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let (days, hours) = match words.as_slice() {
        [hours] => ([true; 7], hours),
        [days, hours] => (parse_days(days).ok_or_else(form)?, hours),
        _ => return Err(form()),
    };
    let (start, end) = hours.split_once('-').ok_or_else(form)?;
    let (start, end) = (
        parse_clock(start).filter(|start| *start < DAY).ok_or_else(form)?,
        parse_clock(end).ok_or_else(form)?,
    );
    if start == end {
        return Err(format!("`{text}` is never open; a whole day is `00:00-24:00`"));
    }
    let length = if end > start {
        end - start
    } else {
        end + DAY - start
    };
    Ok(Window { days, start, length })
}

fn parse_days(text: &str) -> Option<[bool; 7]> {
    let mut days = [false; 7];
    let number = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    for part in text.split(',') {
        let (first, last) = part.split_once("..").unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        let mut day = first;
        days[day] = true;
        while day != last {
            day = (day + 1) % 7;
            days[day] = true;
        }
    }
    Some(days)
}

/// Reads `HH:MM` up to 24:00, as minutes since midnight.
fn parse_clock(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !two_digits(hours) || !two_digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let time = hours * 60 + minutes;
    (minutes < 60 && time <= DAY).then_some(time)
}

struct Clock(u16);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != [true; 7] {
            let days = (0..7).filter(|day| self.days[*day]).map(|day| DAYS[day]);
            write!(f, "{} ", days.collect::<Vec<_>>().join(","))?;
        }
        let end = self.start + self.length;
        let end = if end > DAY { end - DAY } else { end };
        write!(f, "{}-{}", Clock(self.start), Clock(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_open_when_they_say() {
        // 0 is a Monday, 5 a Saturday.
        for (text, day, hour, minute, open) in [
            ("Sat,Sun 02:00-05:00", 5, 2, 0, true),
            ("Sat,Sun 02:00-05:00", 5, 1, 59, false),
            ("Sat,Sun 02:00-05:00", 6, 4, 59, true),
            ("Sat,Sun 02:00-05:00", 6, 5, 0, false),
            ("Sat,Sun 02:00-05:00", 0, 3, 0, false),
            ("Mon..Fri 23:00-04:00", 0, 23, 0, true),
            ("Mon..Fri 23:00-04:00", 0, 3, 59, false),
            ("Mon..Fri 23:00-04:00", 5, 3, 59, true),
            ("Mon..Fri 23:00-04:00", 5, 23, 30, false),
            ("Sun 23:00-04:00", 0, 1, 0, true),
            ("Sun 23:00-04:00", 6, 1, 0, false),
            ("fri..mon 10:00-11:00", 0, 10, 30, true),
            ("fri..mon 10:00-11:00", 1, 10, 30, false),
            ("00:00-24:00", 3, 23, 59, true),
            ("Wed 00:00-24:00", 2, 23, 59, true),
            ("Wed 00:00-24:00", 3, 0, 0, false),
            ("12:00-11:00", 3, 10, 59, true),
            ("12:00-11:00", 3, 11, 30, false),
        ] {
            let window = parse(text).unwrap();
            assert_eq!(
                window.is_open(Moment::new(day, hour, minute)),
                open,
                "{text} {day} {hour}:{minute}"
            );
            assert_eq!(parse(&window.to_string()), Ok(window), "{text}");
        }
    }

    #[test]
    fn what_is_no_window() {
        for text in [
            "",
            "Sat",
            "Sat 2:00-3:00",
            "Sat 02:00",
            "02:00-25:00",
            "24:00-02:00",
            "02:60-03:00",
            "Sat Sun 02:00-03:00",
            "Someday 02:00-03:00",
            "Sat, 02:00-03:00",
            "Mon.. 02:00-03:00",
            "02:00–03:00",
            "+2:00-03:00",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("03:00-03:00").unwrap_err().contains("never open"));
    }

    #[test]
    fn the_next_opening_is_found_round_the_week() {
        let windows = [
            parse("Mon 02:00-03:00").unwrap(),
            parse("Thu 22:00-01:00").unwrap(),
        ];
        let next = |day, hour, minute| {
            let (minutes, moment) = next_opening(&windows, Moment::new(day, hour, minute)).unwrap();
            (minutes, moment.to_string())
        };
        assert_eq!(next(0, 1, 30), (30, "Mon 02:00".to_owned()));
        assert_eq!(next(0, 2, 0), (3 * DAY + 20 * 60, "Thu 22:00".to_owned()));
        assert_eq!(next(6, 23, 0), (180, "Mon 02:00".to_owned()));
        assert_eq!(next_opening(&[], Moment::new(0, 0, 0)), None);
        assert!(is_open(&[], Moment::new(0, 0, 0)) && !is_open(&windows, Moment::new(0, 0, 0)));
    }
}
