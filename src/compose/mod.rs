//! Making images and disks: `container prepare`, `container lint`, disk layout.

pub mod disk;
pub mod lint;
pub mod prepare;
