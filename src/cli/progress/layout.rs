//! How a step looks in a given width: pure functions from its state to lines.
//!
//! A line never has more columns than it is given. Characters that may be wide count as two.

use super::stage::{Count, Item, Stage};
use crate::cli::terminal::Style;
use crate::report::{Unit, Work, size};
use std::time::{Duration, Instant};

/// A bar is not wider; more columns would tell no more.
const WIDEST_BAR: usize = 40;
/// Room of a bar with its brackets and the blanks before it; a narrower one tells nothing.
const BAR_ROOM: usize = 12;
/// The name of an item gets so many columns.
const ITEM_NAME: usize = 24;
/// Items shown at most.
const MOST_ITEMS: usize = 4;
/// Scripts that take so long are told by name.
const SLOW_SCRIPT: Duration = Duration::from_secs(2);
/// Of what is quick nobody wants to know how long it goes on.
const TELL_TIME_AFTER: Duration = Duration::from_secs(1);

/// Returns the lines of a step that runs, at most `rows`, each of at most `columns`.
pub(super) fn live(
    stage: &Stage,
    now: Instant,
    (columns, rows): (usize, usize),
    style: Style,
) -> Vec<String> {
    let mut lines = vec![overall(stage, now, columns, style)];
    let room = rows.saturating_sub(1).min(MOST_ITEMS);
    if let Some((text, since)) = stage.doing(now).filter(|_| room > 0) {
        let mut line = format!("  {}", style.printable(text));
        if since >= TELL_TIME_AFTER {
            line = format!("{line}, {}", time(since));
        }
        lines.push(cut(&line, columns, style));
    }
    let items = stage.items().into_iter().take(room + 1 - lines.len());
    lines.extend(items.map(|item| item_line(item, columns, style)));
    lines
}

/// Something that is told of a step, and the columns it is given so that nothing moves while it grows.
struct Part {
    text: String,
    columns: usize,
}

impl Part {
    fn new(text: String, columns: usize) -> Self {
        Self { text, columns }
    }

    fn of(count: &Count) -> Self {
        let noun = match count.unit {
            Unit::Bytes => {
                let text = amount(count.done, count.total);
                return Self::new(text, width(&size(count.total)) + 4);
            }
            Unit::Layers => "layers",
            Unit::Objects => "objects",
            Unit::Packages => "packages",
            Unit::Actions => "actions",
            Unit::Scripts => "scripts",
        };
        let total = format!("{} {noun}", count.total);
        let columns = count.total.to_string().len() + 1 + total.len();
        Self::new(format!("{}/{total}", count.done), columns)
    }
}

/// Returns what is told of a step's state where it is known, the most important first.
fn parts(stage: &Stage, now: Instant) -> Vec<Part> {
    let rate = stage
        .rate(now)
        .map(|rate| Part::new(format!("{}/s", size(rate)), 9));
    let left = stage
        .left(now)
        .map(|left| Part::new(format!("{} left", coarse(left)), 9));
    // The actions are in the bar, and a number of them tells nobody anything.
    let counts = stage.counts().iter().filter(|count| count.unit != Unit::Actions);
    let mut parts: Vec<Part> = counts.map(Part::of).collect();
    let first = usize::from(!parts.is_empty());
    parts.splice(first..first, rate.into_iter().chain(left));
    parts
}

/// Returns the state of a step in words: how far it is, and what it is at.
pub(super) fn in_words(stage: &Stage, now: Instant) -> String {
    let percent = stage.bar().map(|count| format!("{} %", count.percent()));
    let doing = stage.doing(now).map(|(text, _)| text.to_owned());
    let told: Vec<String> = percent
        .into_iter()
        .chain(parts(stage, now).into_iter().map(|part| part.text))
        .chain(doing)
        .collect();
    if told.is_empty() {
        format!("{}: {} so far", stage.text, time(stage.elapsed(now)))
    } else {
        format!("{}: {}", stage.text, told.join(", "))
    }
}

fn overall(stage: &Stage, now: Instant, columns: usize, style: Style) -> String {
    let text = style.printable(&stage.text);
    let Some(count) = stage.bar() else {
        let elapsed = stage.elapsed(now);
        let goes_on = if elapsed < TELL_TIME_AFTER {
            String::new()
        } else {
            format!(" {}", time(elapsed))
        };
        let dotted = format!("{text}{}{goes_on}", dots(style));
        if width(&dotted) <= columns {
            return dotted;
        }
        return with_tail(&text, &goes_on, columns, style);
    };
    let parts = parts(stage, now);
    let percent = format!("{:>3} %", count.percent());
    // The first part gets its room before the bar, the others what the bar leaves.
    let mut tail = format!("  {percent}");
    let mut room = columns.saturating_sub(width(&text) + width(&tail));
    let mut parts = parts.iter();
    let mut add = |reserve: usize, most: usize| {
        for part in parts.by_ref().take(most) {
            let needed = width(&part.text).max(part.columns) + 2;
            if needed + reserve > room {
                break;
            }
            room -= needed;
            tail = format!("{tail}{:>needed$}", part.text);
        }
        room
    };
    add(0, 1);
    let room = add(BAR_ROOM, usize::MAX);
    if room < BAR_ROOM {
        return with_tail(&text, &tail, columns, style);
    }
    let bar = bar(count, (room - 4).min(WIDEST_BAR), style);
    format!("{text}  {bar}{tail}")
}

fn item_line(item: &Item, columns: usize, style: Style) -> String {
    let name = style.printable(short_name(&item.name));
    let count = Count {
        unit: Unit::Bytes,
        done: item.done,
        total: item.total,
    };
    let tail = format!(
        "  {:>3} %  {:>12}",
        count.percent(),
        amount(item.done, item.total)
    );
    let room = columns.saturating_sub(2 + ITEM_NAME + width(&tail));
    if room < BAR_ROOM {
        return with_tail(&format!("  {name}"), &tail, columns, style);
    }
    let name = cut(&name, ITEM_NAME, style);
    let blank = " ".repeat(ITEM_NAME - width(&name));
    let bar = bar(count, (room - 4).min(WIDEST_BAR), style);
    format!("  {name}{blank}  {bar}{tail}")
}

/// Returns as much of a digest as people compare, and other names as they are.
fn short_name(name: &str) -> &str {
    match name.strip_prefix("sha256:") {
        Some(digest) => digest.get(..12).unwrap_or(digest),
        None => name,
    }
}

/// Returns a bar of `columns` and the brackets around it.
fn bar(count: Count, columns: usize, style: Style) -> String {
    let (full, empty) = if style.unicode { ("█", "░") } else { ("#", ".") };
    let filled = u128::from(count.done) * columns as u128 / u128::from(count.total.max(1));
    let filled = usize::try_from(filled).unwrap_or(columns).min(columns);
    format!(
        "[{}{}]",
        style.green(&full.repeat(filled)),
        empty.repeat(columns - filled)
    )
}

/// Returns the one line that stays of a step that succeeded.
pub(super) fn finished(text: &str, work: &[Work], took: Duration, style: Style) -> (String, String) {
    let bytes = work
        .iter()
        .find(|work| work.unit == Unit::Bytes && work.total > 0);
    let bytes = bytes
        .map(|work| format!(", {}", size(work.total)))
        .unwrap_or_default();
    (style.printable(text), format!("{bytes} in {}", time(took)))
}

/// Returns a line on the scripts that took long, if some did.
pub(super) fn slow_scripts(stage: &Stage) -> Option<String> {
    let slow = stage.slow_scripts(SLOW_SCRIPT);
    let told: Vec<String> = slow
        .iter()
        .take(3)
        .map(|(script, took)| format!("{script} {}", time(*took)))
        .collect();
    (!told.is_empty()).then(|| format!("  Slow scripts: {}", told.join(", ")))
}

/// Returns `text` and then `tail` in one line; the text is cut where both do not fit.
pub(super) fn with_tail(text: &str, tail: &str, columns: usize, style: Style) -> String {
    let tail = cut(tail, columns, style);
    let text = cut(text, columns - width(&tail), style);
    text + &tail
}

/// Returns a text of at most so many columns.
pub(super) fn cut(text: &str, columns: usize, style: Style) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let dots = dots(style);
    let room = columns.saturating_sub(width(dots));
    let mut kept = String::new();
    let mut used = 0;
    for letter in text.chars() {
        used += letter_width(letter);
        if used > room {
            break;
        }
        kept.push(letter);
    }
    if columns >= width(dots) {
        kept.push_str(dots);
    }
    kept
}

fn dots(style: Style) -> &'static str {
    if style.unicode { "…" } else { "..." }
}

/// Returns a text in lines of at most so many columns, broken between words.
pub(super) fn wrapped(text: &str, columns: usize, style: Style) -> Vec<String> {
    const INDENT: &str = "  ";
    let mut lines = Vec::new();
    for paragraph in style.printable(text).lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            for piece in pieces(word, columns.saturating_sub(INDENT.len()).max(2)) {
                if line.is_empty() {
                    line = piece;
                } else if width(&line) + 1 + width(&piece) <= columns {
                    line = format!("{line} {piece}");
                } else {
                    lines.push(std::mem::replace(&mut line, format!("{INDENT}{piece}")));
                }
            }
        }
        lines.push(line);
    }
    lines
}

/// Breaks a word that no line can hold.
fn pieces(word: &str, columns: usize) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut used = 0;
    for letter in word.chars() {
        used += letter_width(letter);
        if used > columns {
            pieces.push(String::new());
            used = letter_width(letter);
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push(letter);
        }
    }
    pieces
}

/// Returns the columns that a text takes at most; colours take none.
pub(super) fn width(text: &str) -> usize {
    let mut colour = false;
    let mut columns = 0;
    for letter in text.chars() {
        match letter {
            '\x1b' => colour = true,
            'm' if colour => colour = false,
            _ if colour => {}
            letter => columns += letter_width(letter),
        }
    }
    columns
}

fn letter_width(letter: char) -> usize {
    match letter {
        '…' | '█' | '░' => 1,
        letter if letter.is_ascii() => 1,
        _ => 2,
    }
}

/// Returns `87/213 MiB`, or both with their units where these differ.
fn amount(done: u64, total: u64) -> String {
    let (done, total) = (size(done), size(total));
    match (done.split_once(' '), total.split_once(' ')) {
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number}/{total}"),
        _ => format!("{done}/{total}"),
    }
}

/// Returns a time as people read it.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => {
            // Rounded up: nothing takes no time.
            let tenths = time.as_millis().div_ceil(100).max(1);
            format!("{}.{} s", tenths / 10, tenths % 10)
        }
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Returns a time that is only an estimate.
fn coarse(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Event;

    const UNICODE: Style = Style {
        coloured: false,
        unicode: true,
    };
    const ASCII: Style = Style {
        coloured: false,
        unicode: false,
    };

    fn fetching(begin: Instant) -> Stage {
        let (bytes, layers) = (213 << 20, 5);
        let work = [Work::new(Unit::Bytes, bytes), Work::new(Unit::Layers, layers)];
        let mut stage = Stage::new("Fetching layers", &work, begin);
        let done = 87 << 20;
        for (second, done) in [(2, done / 2), (5, done)] {
            let (unit, total) = (Unit::Bytes, bytes);
            stage.take(
                &Event::Progress { unit, done, total },
                begin + Duration::from_secs(second),
            );
        }
        let (unit, done, total) = (Unit::Layers, 2, layers);
        stage.take(&Event::Progress { unit, done, total }, begin);
        for (digit, done, total) in [
            ("3", 40, 98),
            ("b", 10, 99),
            ("7", 1, 2),
            ("9", 1, 3),
            ("0", 1, 4),
        ] {
            let item = format!("sha256:{}", digit.repeat(64));
            let (done, total) = (done << 20, total << 20);
            stage.take(&Event::Bytes { item, done, total }, begin);
        }
        stage
    }

    fn installing(begin: Instant) -> Stage {
        let units = [
            (Unit::Actions, 9, 24),
            (Unit::Packages, 2, 12),
            (Unit::Scripts, 3, 9),
        ];
        let work = units.map(|(unit, _, total)| Work::new(unit, total));
        let mut stage = Stage::new("Installing packages", &work, begin);
        for (unit, done, total) in units {
            stage.take(&Event::Progress { unit, done, total }, begin);
        }
        let text = "Setting up a-package-with-quite-a-long-name".to_owned();
        stage.take(&Event::Doing { text }, begin);
        stage
    }

    #[test]
    fn a_fetch_in_several_widths() {
        let begin = Instant::now();
        let now = begin + Duration::from_secs(5);
        let at = |columns, rows, style| live(&fetching(begin), now, (columns, rows), style);
        let shown = |columns, rows, style| at(columns, rows, style).join("\n");
        assert_eq!(
            shown(99, 5, UNICODE),
            "\
Fetching layers  [██████████░░░░░░░░░░░░░░░░]   40 %   87/213 MiB   17 MiB/s   8 s left  2/5 layers
  bbbbbbbbbbbb              [████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░]   10 %     10/99 MiB
  333333333333              [████████████████░░░░░░░░░░░░░░░░░░░░░░░░]   40 %     40/98 MiB
  000000000000              [██████████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░]   25 %   1.0/4.0 MiB
  999999999999              [█████████████░░░░░░░░░░░░░░░░░░░░░░░░░░░]   33 %   1.0/3.0 MiB"
        );
        assert_eq!(
            shown(79, 2, ASCII),
            "\
Fetching layers  [#######...........]   40 %   87/213 MiB   17 MiB/s   8 s left
  bbbbbbbbbbbb              [##..........................]   10 %     10/99 MiB"
        );
        assert_eq!(
            shown(39, 3, ASCII),
            "\
Fetching layers   40 %   87/213 MiB
  bbbbbbbbbbbb   10 %     10/99 MiB
  333333333333   40 %     40/98 MiB"
        );
        assert_eq!(shown(20, 1, ASCII), "Fetching l...   40 %");
    }

    #[test]
    fn an_installation_and_a_step_without_a_bar() {
        let begin = Instant::now();
        let now = begin + Duration::from_secs(3);
        assert_eq!(
            live(&installing(begin), now, (79, 24), UNICODE).join("\n"),
            "\
Installing packages  [███████░░░░░░░░░░░░░]   37 %   2/12 packages  3/9 scripts
  Setting up a-package-with-quite-a-long-name, 3.0 s"
        );
        let merging = Stage::new("Merging layers", &[], begin);
        assert_eq!(live(&merging, begin, (40, 24), UNICODE), ["Merging layers…"]);
        assert_eq!(live(&merging, now, (40, 24), ASCII), ["Merging layers... 3.0 s"]);
        assert_eq!(live(&merging, now, (16, 24), UNICODE), ["Merging l… 3.0 s"]);
    }

    #[test]
    fn no_line_is_wider_and_there_are_no_more_lines_than_fit() {
        let begin = Instant::now();
        let now = begin + Duration::from_secs(5);
        let long = Stage::new(&"Making é ".repeat(60), &[], begin);
        for columns in 1..=300 {
            for rows in 1..=7 {
                for style in [UNICODE, ASCII] {
                    for stage in [fetching(begin), installing(begin), long.clone()] {
                        let lines = live(&stage, now, (columns, rows), style);
                        assert!(lines.len() <= rows, "{columns}x{rows}: {lines:#?}");
                        let wide = lines.iter().find(|line| width(line) > columns);
                        assert!(wide.is_none(), "{columns}x{rows}: {lines:#?}");
                        assert!(style.unicode || lines.iter().all(|line| line.is_ascii()));
                    }
                }
            }
        }
    }

    #[test]
    fn remarks_are_broken_between_words() {
        let text = "One two three\nfour a-word-that-is-longer-than-a-line end";
        assert_eq!(
            wrapped(text, 12, ASCII),
            [
                "One two",
                "  three",
                "four",
                "  a-word-tha",
                "  t-is-longe",
                "  r-than-a-l",
                "  ine end"
            ]
        );
        assert_eq!(wrapped("short", 40, ASCII), ["short"]);
    }

    #[test]
    fn times_and_amounts_read_well() {
        let seconds = |seconds: f32| time(Duration::from_secs_f32(seconds));
        assert_eq!(
            [
                seconds(0.25),
                seconds(9.99),
                seconds(12.3),
                seconds(125.0),
                seconds(3700.0)
            ],
            ["0.3 s", "10.0 s", "12 s", "2 min 5 s", "1 h 1 min"]
        );
        assert_eq!(coarse(Duration::from_secs(61)), "2 min");
        assert_eq!(amount(1 << 20, 213 << 20), "1.0/213 MiB");
        assert_eq!(amount(5 << 10, 213 << 20), "5.0 KiB/213 MiB");
        let work = [Work::new(Unit::Bytes, 213 << 20), Work::new(Unit::Layers, 5)];
        let (text, tail) = finished("Fetched 5 layers", &work, Duration::from_secs(12), ASCII);
        assert_eq!(text + &tail, "Fetched 5 layers, 213 MiB in 12 s");
    }
}
