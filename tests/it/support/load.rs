//! What a process uses, as the kernel tells it.

/// Memory and descriptors of a process.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What is in memory now, in KiB.
    pub resident: u64,
    /// The most that ever was, in KiB.
    pub peak: u64,
    /// Open descriptors.
    pub descriptors: usize,
}

impl Load {
    /// Looks at a process, which must be there.
    pub fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
            number.and_then(|number| number.parse().ok()).expect("a number")
        };
        Self {
            resident: number("VmRSS:"),
            peak: number("VmHWM:"),
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))
                .expect("the descriptors")
                .count(),
        }
    }
}
