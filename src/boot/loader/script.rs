//! What GRUB would read as script.

/// Characters that GRUB's language gives a meaning wherever they stand.
const SCRIPT: &str = "\"$&';<>\\{|}";

/// Returns whether GRUB passes `text` on unchanged, and the first character that prevents it otherwise.
///
/// Holds for kernel arguments and for titles, with both GRUB loaders: each writes the text unquoted. What is
/// refused was found by trying each ASCII character on Debian's signed GRUB 2.06: a `#` is harmless within a
/// word, `*` and `?` are harmless unless the word is a path.
pub fn grub_safe(text: &str) -> Result<(), char> {
    if let Some(bad) = text.chars().find(|c| SCRIPT.contains(*c) || c.is_control()) {
        return Err(bad);
    }
    for word in text.split(' ') {
        if word.starts_with('#') {
            return Err('#');
        }
        if word.starts_with(['/', '(']) {
            if let Some(bad) = word.chars().find(|c| "*?".contains(*c)) {
                return Err(bad);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_arguments_pass() {
        for text in [
            "root=UUID=1-2",
            "console=ttyS0,115200n8",
            "ip=[::1]:[::2]",
            "a#b",
            "pattern=*",
            "init=/bin/*",
            "Debian GNU/Linux 13 (trixie) (ostree:0)",
            "",
        ] {
            assert_eq!(grub_safe(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn script_is_named() {
        for (text, bad) in [
            ("memmap=1G$2G", '$'),
            ("a;halt", ';'),
            ("dyndbg=\"file x +p\"", '"'),
            ("x='y", '\''),
            ("a\nb", '\n'),
            ("#note", '#'),
            ("/boot/*", '*'),
            ("a\\b", '\\'),
            ("{", '{'),
        ] {
            assert_eq!(grub_safe(text), Err(bad), "{text}");
        }
    }
}
