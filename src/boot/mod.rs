//! What the boot loader reads: kernel arguments, the image's `kargs.d`, boot entries, GRUB configuration.

pub mod kargs;
pub mod kargs_d;
pub mod loader;
