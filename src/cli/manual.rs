//! Manual pages of section 8: one for the program and one for each verb, from the definitions of the command line.
//!
//! clap_mangen writes names, synopsis, description and options. What stands below the options in the help (examples)
//! becomes sections of its own here: a line that ends with a colon is a heading, indented lines keep their breaks.

use anyhow::Result;
use clap::Command;
use clap_mangen::Man;

const SECTION: &str = "8";

/// Returns the pages of the program and of all its verbs that are not hidden: file name and text.
pub(crate) fn pages(program: Command) -> Result<Vec<(String, Vec<u8>)>> {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let mut found = Vec::new();
    collect(&program, None, &mut found)?;
    Ok(found)
}

fn collect(command: &Command, parent: Option<&str>, found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let name = display_name(command).to_owned();
    found.push((format!("{name}.{SECTION}"), page(command, parent)?));
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        collect(verb, Some(&name), found)?;
    }
    Ok(())
}

fn page(command: &Command, parent: Option<&str>) -> Result<Vec<u8>> {
    let below = command.get_after_long_help().or_else(|| command.get_after_help());
    let below = below.map(ToString::to_string).unwrap_or_default();
    let bare = command
        .clone()
        .after_help(None)
        .after_long_help(None)
        .version(None)
        .long_version(None)
        .subcommand_help_heading("VERBS")
        .subcommand_value_name("VERB");
    let mut text = Vec::new();
    Man::new(bare)
        .title(display_name(command).to_uppercase())
        .section(SECTION)
        // An empty one would be lost, and the source taken for it; a real one would differ from build to build.
        .date(" ")
        .source(concat!("apt-ostree ", env!("CARGO_PKG_VERSION")))
        .manual("apt-ostree")
        .render(&mut text)?;
    text.extend(sections(&below).into_bytes());
    if let Some(parent) = parent {
        text.extend(format!(".SH \"SEE ALSO\"\n.BR {} ({SECTION})\n", escaped(parent)).into_bytes());
    }
    Ok(text)
}

fn display_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// Returns the text below the options as sections of a page.
fn sections(text: &str) -> String {
    let mut page = String::new();
    let mut literal = false;
    for line in text.lines() {
        let indented = line.starts_with(' ');
        let example = indented || (literal && line.is_empty());
        if example != literal {
            page.push_str(if example { ".PP\n.nf\n" } else { ".fi\n" });
            literal = example;
        }
        match line.strip_suffix(':') {
            Some(heading) if !indented => {
                page.push_str(&format!(".SH \"{}\"\n", escaped(&heading.to_uppercase())));
            }
            _ if line.is_empty() && !literal => page.push_str(".PP\n"),
            _ => {
                // A point or an apostrophe would begin a request.
                page.push_str("\\&");
                page.push_str(&escaped(line));
                page.push('\n');
            }
        }
    }
    if literal {
        page.push_str(".fi\n");
    }
    page
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_below_the_options_becomes_sections() {
        let text = "Examples:\n  a --b\n      'c' \\ d\n\nGetting started:\nOne.\n\n.Two";
        let expected = ".SH \"EXAMPLES\"\n.PP\n.nf\n\\&  a \\-\\-b\n\\&      \\(aqc\\(aq \\e d\n\\&\n.fi\n\
            .SH \"GETTING STARTED\"\n\\&One.\n.PP\n\\&.Two\n";
        assert_eq!(sections(text), expected);
    }
}
