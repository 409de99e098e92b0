//! The boot loader: what GRUB can be given.

/// Returns the text's first character that GRUB would read as script, as an error.
pub fn grub_safe(text: &str) -> Result<(), char> {
    match text.chars().find(|c| "$;{}'\"\\|&<>`#".contains(*c)) {
        Some(c) => Err(c),
        None => Ok(()),
    }
}
