//! Making images and disks: `container prepare`, `container lint`, disk layout.

pub mod disk;
pub mod initramfs;
pub mod lint;
pub mod prepare;
pub(crate) mod rootfs;
pub(crate) mod sysusers;
pub(crate) mod tmpfiles;
