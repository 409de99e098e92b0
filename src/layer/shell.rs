//! A shell script cut into simple commands: enough of POSIX sh to tell which of them always run.
//!
//! This is no parser: what it does not understand it passes over, so that a finding is worth reading.

/// A simple command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// The line it begins on, from 1.
    pub(crate) line: usize,
    /// Its words without quotes; assignments before it are left out.
    pub(crate) words: Vec<String>,
    /// Files it writes to.
    pub(crate) writes: Vec<String>,
    /// Files it reads from by a redirection.
    pub(crate) reads: Vec<String>,
    /// Whether it runs only where a system is running, by a test around or before it.
    pub(crate) guarded: bool,
    /// Whether the script goes on when it fails.
    pub(crate) may_fail: bool,
}

/// Words in a condition by which scripts find out that the system is running.
const GUARDS: &[&str] = &[
    "/run/",
    "/sys/",
    "/sys",
    "/proc/1/",
    "ischroot",
    "systemd-detect-virt",
    "is-system-running",
    "is-active",
    "running-in-container",
    "pidof",
    "pgrep",
    "mountpoint",
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `;`, a newline, `&`, `(`, `)`, `|` and the doubled ones.
    Operator(&'static str),
    /// `>` or `>>`; the file is the next word.
    Write,
    /// Any other redirection; its file is the next word.
    Redirect,
}

/// Returns the commands of a script.
pub(crate) fn commands(script: &str) -> Vec<Command> {
    let mut nested = Vec::new();
    let tokens = tokens(script, 1, &mut nested);
    let mut commands = Reader::default().read(tokens);
    for (line, text) in nested {
        let inner = self::commands(&text);
        commands.extend(inner.into_iter().map(|mut command| {
            command.line += line - 1;
            // The status of a substitution is rarely that of the line.
            command.may_fail = true;
            command
        }));
    }
    commands.sort_by_key(|command| command.line);
    commands
}

/// Cuts a script into tokens with their lines; substitutions go to `nested`.
fn tokens(script: &str, first_line: usize, nested: &mut Vec<(usize, String)>) -> Vec<(usize, Token)> {
    let text: Vec<char> = script.chars().collect();
    let mut found = Vec::new();
    let mut documents: Vec<(String, bool)> = Vec::new();
    let (mut at, mut line) = (0, first_line);
    while at < text.len() {
        let here = text[at];
        let next = text.get(at + 1).copied().unwrap_or('\n');
        match here {
            '\n' => {
                found.push((line, Token::Operator("\n")));
                at += 1;
                line += 1;
                for (end, strips) in documents.drain(..) {
                    loop {
                        let length = text[at..].iter().take_while(|c| **c != '\n').count();
                        let row: String = text[at..at + length].iter().collect();
                        let row = if strips {
                            row.trim_start_matches('\t')
                        } else {
                            &row
                        };
                        at = (at + length + 1).min(text.len());
                        line += 1;
                        if row == end || at >= text.len() {
                            break;
                        }
                    }
                }
            }
            ' ' | '\t' | '\r' => at += 1,
            '\\' if next == '\n' => {
                at += 2;
                line += 1;
            }
            '#' => at += text[at..].iter().take_while(|c| **c != '\n').count(),
            ';' | '&' | '|' => {
                let (operator, length) = match (here, next) {
                    (';', ';') => (";;", 2),
                    ('&', '&') => ("&&", 2),
                    ('|', '|') => ("||", 2),
                    ('&', '>') => ("&>", 2),
                    (';', _) => (";", 1),
                    ('&', _) => ("&", 1),
                    _ => ("|", 1),
                };
                at += length;
                let token = if operator == "&>" {
                    Token::Write
                } else {
                    Token::Operator(operator)
                };
                found.push((line, token));
            }
            '(' => {
                found.push((line, Token::Operator("(")));
                at += 1;
            }
            ')' => {
                found.push((line, Token::Operator(")")));
                at += 1;
            }
            '<' if next == '<' => {
                at += 2;
                let strips = text.get(at) == Some(&'-');
                at += usize::from(strips);
                while text.get(at).is_some_and(|c| *c == ' ' || *c == '\t') {
                    at += 1;
                }
                let (word, end, lines) = word(&text, at, line, &mut Vec::new());
                at = end;
                line += lines;
                documents.push((word, strips));
            }
            '<' | '>' => {
                at += 1;
                let writes = here == '>';
                let duplicates = text.get(at) == Some(&'&');
                while text.get(at).is_some_and(|c| "<>&|".contains(*c)) {
                    at += 1;
                }
                found.push((
                    line,
                    if writes && !duplicates {
                        Token::Write
                    } else {
                        Token::Redirect
                    },
                ));
            }
            _ => {
                let (word, end, lines) = word(&text, at, line, nested);
                // `2>` is a redirection, not a word.
                let is_descriptor =
                    matches!(text.get(end), Some('>' | '<')) && word.chars().all(|c| c.is_ascii_digit());
                if !is_descriptor {
                    found.push((line, Token::Word(word)));
                }
                at = end;
                line += lines;
            }
        }
    }
    found
}

/// Reads one word from `at`; returns it without quotes, where it ends, and how many lines it spans.
fn word(
    text: &[char],
    mut at: usize,
    line: usize,
    nested: &mut Vec<(usize, String)>,
) -> (String, usize, usize) {
    let mut word = String::new();
    let mut lines = 0;
    let mut quoted = false;
    while let Some(&here) = text.get(at) {
        match here {
            '\'' if !quoted => {
                at += 1;
                while let Some(&inside) = text.get(at).filter(|c| **c != '\'') {
                    lines += usize::from(inside == '\n');
                    word.push(inside);
                    at += 1;
                }
                at += 1;
            }
            '"' => {
                quoted = !quoted;
                at += 1;
            }
            '\\' => {
                if let Some(&escaped) = text.get(at + 1) {
                    lines += usize::from(escaped == '\n');
                    if escaped != '\n' {
                        word.push(escaped);
                    }
                }
                at += 2;
            }
            '`' => {
                let inside: String = text[at + 1..].iter().take_while(|c| **c != '`').collect();
                at += inside.chars().count() + 2;
                lines += inside.matches('\n').count();
                nested.push((line + lines, inside));
                word.push('$');
            }
            '$' if text.get(at + 1) == Some(&'(') => {
                let end = closing(text, at + 1, '(', ')');
                let inside: String = text[(at + 2).min(end)..end].iter().collect();
                nested.push((line + lines, inside.clone()));
                lines += inside.matches('\n').count();
                at = end + 1;
                word.push('$');
            }
            '$' if text.get(at + 1) == Some(&'{') => {
                let end = closing(text, at + 1, '{', '}');
                word.extend(&text[at..(end + 1).min(text.len())]);
                at = end + 1;
            }
            c if !quoted && (c.is_whitespace() || ";&|()<>".contains(c)) => break,
            c => {
                lines += usize::from(c == '\n');
                word.push(c);
                at += 1;
            }
        }
    }
    (word, at.min(text.len()), lines)
}

/// Returns where the bracket that stands at `at` is closed, or the end.
fn closing(text: &[char], at: usize, open: char, close: char) -> usize {
    let mut depth = 0;
    for (index, c) in text.iter().enumerate().skip(at) {
        if *c == open {
            depth += 1;
        } else if *c == close {
            depth -= 1;
            if depth == 0 {
                return index;
            }
        }
    }
    text.len()
}

/// One `if`, `while`, `case` or group that is not closed yet.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    /// Whether its condition is being read.
    condition: bool,
    /// Whether the condition tests for a running system, and whether it is negated.
    tests: bool,
    negated: bool,
    /// Whether what is read now runs only on a running system.
    guarded: bool,
    /// Whether patterns of a `case` are being read.
    pattern: bool,
}

#[derive(Default)]
struct Reader {
    frames: Vec<Frame>,
    commands: Vec<Command>,
    /// Commands of the and-or list that is being read.
    list: Vec<Command>,
    operators: Vec<&'static str>,
    words: Vec<String>,
    writes: Vec<String>,
    reads: Vec<String>,
    line: usize,
    /// Whether the rest of the script runs only on a running system.
    rest_guarded: bool,
}

impl Reader {
    fn read(mut self, tokens: Vec<(usize, Token)>) -> Vec<Command> {
        let mut tokens = tokens.into_iter().peekable();
        while let Some((line, token)) = tokens.next() {
            if self.frames.last().is_some_and(|frame| frame.pattern) {
                self.pattern(&token);
                continue;
            }
            match token {
                Token::Word(word) => self.word(line, word),
                Token::Write => {
                    if let Some((_, Token::Word(file))) = tokens.peek() {
                        self.writes.push(file.clone());
                        tokens.next();
                    }
                }
                Token::Redirect => {
                    if let Some((_, Token::Word(file))) = tokens.peek() {
                        self.reads.push(file.clone());
                        tokens.next();
                    }
                }
                Token::Operator("&&" | "||" | "|") if self.words.is_empty() && self.writes.is_empty() => {}
                Token::Operator(operator @ ("&&" | "||" | "|")) => {
                    self.end_command();
                    self.operators.push(operator);
                    if let Some((_, Token::Operator("\n"))) = tokens.peek() {
                        tokens.next();
                    }
                }
                Token::Operator(";;") => {
                    self.end_list();
                    if let Some(frame) = self.frames.last_mut() {
                        frame.pattern = true;
                    }
                }
                Token::Operator(_) => self.end_list(),
            }
        }
        self.end_list();
        self.commands
    }

    fn pattern(&mut self, token: &Token) {
        let Some(frame) = self.frames.last_mut() else {
            return;
        };
        match token {
            Token::Operator(")") => frame.pattern = false,
            Token::Word(word) if word == "esac" => {
                self.frames.pop();
            }
            _ => {}
        }
    }

    fn word(&mut self, line: usize, word: String) {
        if !self.words.is_empty() {
            if word == "in" && self.words[0] == "case" {
                self.words.clear();
                self.frames.push(Frame {
                    pattern: true,
                    guarded: self.is_guarded(),
                    ..Frame::default()
                });
                return;
            }
            self.words.push(word);
            return;
        }
        let guarded = self.is_guarded();
        match word.as_str() {
            "if" | "while" | "until" => self.frames.push(Frame {
                condition: true,
                guarded,
                ..Frame::default()
            }),
            "elif" => {
                self.end_list();
                if let Some(frame) = self.frames.last_mut() {
                    frame.condition = true;
                    frame.guarded = false;
                    (frame.tests, frame.negated) = (false, false);
                }
            }
            "then" | "do" => {
                self.end_list();
                if let Some(frame) = self.frames.last_mut().filter(|frame| frame.condition) {
                    frame.condition = false;
                    frame.guarded |= frame.tests && !frame.negated;
                }
            }
            "else" => {
                self.end_list();
                let outer = self.frames.iter().rev().skip(1).any(|frame| frame.guarded);
                if let Some(frame) = self.frames.last_mut() {
                    frame.guarded = outer || (frame.tests && frame.negated);
                }
            }
            "fi" | "done" | "esac" => {
                self.end_list();
                self.frames.pop();
            }
            "{" | "}" | "time" | "exec" | "command" | "nohup" | "env" => {}
            "!" => {
                if let Some(frame) = self.frames.last_mut().filter(|frame| frame.condition) {
                    frame.negated = true;
                }
            }
            "for" => self.words.push(word),
            _ if is_assignment(&word) => {}
            _ => {
                self.line = line;
                self.words.push(word);
            }
        }
    }

    fn is_guarded(&self) -> bool {
        self.rest_guarded || self.frames.iter().any(|frame| frame.guarded)
    }

    fn in_condition(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.condition)
    }

    fn end_command(&mut self) {
        let words = std::mem::take(&mut self.words);
        let writes = std::mem::take(&mut self.writes);
        let reads = std::mem::take(&mut self.reads);
        if words.is_empty() {
            return;
        }
        let tests = words.iter().any(|word| {
            GUARDS
                .iter()
                .any(|guard| word == guard || word.starts_with(guard))
        });
        if let Some(frame) = self.frames.last_mut().filter(|frame| frame.condition) {
            frame.tests |= tests;
            frame.negated |= tests && words.get(1).is_some_and(|word| word == "!");
        }
        let guarded = self.is_guarded()
            // `[ -d /run/systemd/system ] && command`
            || self.operators.contains(&"&&") && self.list.iter().any(is_test);
        self.list.push(Command {
            line: self.line,
            words,
            writes,
            reads,
            guarded,
            may_fail: self.in_condition(),
        });
    }

    fn end_list(&mut self) {
        self.end_command();
        let mut list = std::mem::take(&mut self.list);
        let operators = std::mem::take(&mut self.operators);
        for index in 0..list.len() {
            // What follows `||` decides what a failure means.
            let rescue = operators
                .iter()
                .enumerate()
                .skip(index)
                .find(|(_, operator)| **operator == "||");
            if let Some(rescue) = rescue.and_then(|(at, _)| list.get(at + 1)) {
                list[index].may_fail |= !matches!(rescue.words[0].as_str(), "exit" | "return" | "die");
            }
        }
        let leaves = list
            .last()
            .is_some_and(|last| matches!(last.words[0].as_str(), "exit" | "return"));
        if leaves && operators.first() == Some(&"||") && is_test(&list[0]) && self.frames.is_empty() {
            self.rest_guarded = true;
        }
        self.commands.append(&mut list);
    }
}

fn is_test(command: &Command) -> bool {
    command.words.get(1).is_none_or(|word| word != "!")
        && command.words.iter().any(|word| {
            GUARDS
                .iter()
                .any(|guard| word == guard || word.starts_with(guard))
        })
        && matches!(
            command.words[0].as_str(),
            "[" | "test"
                | "[["
                | "ischroot"
                | "systemd-detect-virt"
                | "systemctl"
                | "pidof"
                | "pgrep"
                | "mountpoint"
        )
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with(|c: char| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(script: &str) -> Vec<String> {
        commands(script)
            .iter()
            .map(|command| {
                format!(
                    "{}:{}{}{}",
                    command.line,
                    command.words.join(" "),
                    if command.guarded { " guarded" } else { "" },
                    if command.may_fail { " may-fail" } else { "" }
                )
            })
            .collect()
    }

    #[test]
    fn comments_quotes_and_documents_are_no_commands() {
        let script = "#!/bin/sh\n# mount x\necho 'mount a; mount b' \"and mount c\" # mount d\ncat <<EOF\nmount e\nEOF\ncat <<-'E'\n\tmount f\n\tE\nlast \\\n two\n";
        assert_eq!(
            shown(script),
            [
                "3:echo mount a; mount b and mount c",
                "4:cat",
                "7:cat",
                "10:last two"
            ]
        );
    }

    #[test]
    fn guards_and_rescues_are_seen() {
        let script = "if [ -d /run/systemd/system ]; then\n a1\nelse\n a2\nfi\n[ -d /run/systemd/system ] && b1\n\
                      c1 || true\nc2 || exit 1\nif ! d1; then d2; fi\ncase \"$1\" in\n mount|e0) e1 ;;\n *) e2;;\nesac\n\
                      if [ ! -e /run/x ]; then f1; else f2; fi\nX=1 g1 >/sys/x 2>&1\ny=$(h1 x)\n[ -e /run/x ] || exit 0\ni1\n";
        let shown: Vec<_> = shown(script)
            .into_iter()
            .filter(|line| !line.contains("/run") && !line.contains("exit"))
            .collect();
        assert_eq!(
            shown,
            [
                "2:a1 guarded",
                "4:a2",
                "6:b1 guarded",
                "7:c1 may-fail",
                "7:true",
                "8:c2",
                "9:d1 may-fail",
                "9:d2",
                "11:e1",
                "12:e2",
                "14:f1",
                "14:f2 guarded",
                "15:g1",
                "16:h1 x may-fail",
                "18:i1 guarded",
            ]
        );
        assert_eq!(
            commands(script)
                .iter()
                .find(|command| command.words == ["g1"])
                .unwrap()
                .writes,
            ["/sys/x"]
        );
    }
}
