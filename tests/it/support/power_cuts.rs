//! Power cuts at many points of what a program did, each examined on a disk of its own.

use super::mounted::Mounted;
use super::run;
use super::volatile_disk::{Random, VolatileDisk};
use anyhow::{Context, Result};
use apt_ostree::host::environment::variable;
use apt_ostree::host::mounts;
use apt_ostree::host::runner::Cmd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tempfile::TempDir;

/// How much of what was not flushed is there after a cut, in percent: nothing, little, half, most, everything.
const CHANCES: [u64; 5] = [0, 10, 50, 90, 100];
const SEED: u64 = 20_260_102;
/// The cuts are examined side by side.
const THREADS: usize = 2;

/// What a disk has left after a power cut: a file in memory, and where to mount it.
pub struct Cut {
    image: PathBuf,
    place: TempDir,
    _memory: Mounted,
    _folder: TempDir,
}

impl Cut {
    /// Makes room for it.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("directory");
        Self {
            image: folder.path().join("disk"),
            place: tempfile::tempdir().expect("directory"),
            _memory: Mounted::tmpfs(folder.path(), "size=1g"),
            _folder: folder,
        }
    }

    /// Returns the file that is the disk.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Mounts it, which replays the file system's journal, lets `look` look, and checks the file system.
    pub fn examine(&self, look: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let mounted = Mounted::image(self.place.path(), &self.image);
        let looked = look(self.place.path());
        drop(mounted);
        looked?;
        let check = Cmd::new("fsck.ext4").args(["-f", "-n"]).arg(&self.image);
        check.run().map(drop).context("The file system is damaged")
    }
}

/// One power cut.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    at: usize,
    chance: u64,
    seed: u64,
    /// Whether the program had said that it was done.
    pub after: bool,
}

/// What a program did: from one position of the disk's record to another, where it said that it was done.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    from: usize,
    pub to: usize,
}

impl Span {
    /// Returns what `program` did to the disk; its end is taken at once, without anything being flushed for it.
    pub fn of(disk: &VolatileDisk, program: impl FnOnce()) -> Self {
        let from = disk.now();
        program();
        let to = disk.now();
        Self { from, to }
    }

    /// Returns so many power cuts before the end and so many from there on, in the order of the disk's record.
    ///
    /// Every other one is right before a flush, when most is at stake, the others are anywhere. Of those at the end one
    /// has nothing but what was flushed, the others have a part of what was not, or come later.
    pub fn points(&self, disk: &VolatileDisk, before: usize, after: usize) -> Vec<Point> {
        let number = |name: &str| {
            let text = variable(name)?;
            Some(text.to_str()?.parse().expect("a number"))
        };
        let seed: u64 = number("APT_OSTREE_POWER_SEED").unwrap_or(SEED);
        let times: usize = number("APT_OSTREE_POWER_TIMES").unwrap_or(1) as usize;
        let mut random = Random::new(seed);
        let flushes = disk.flushes(self.from, self.to);
        assert!(
            !flushes.is_empty(),
            "nothing was flushed from {} to {}",
            self.from,
            self.to
        );
        let point = |at, after| Point {
            at,
            chance: 0,
            seed,
            after,
        };
        let mut points = vec![point(self.to, true)];
        for index in 0..before * times {
            let at = match index % 2 {
                0 => flushes[random.below(flushes.len() as u64) as usize] - 1,
                _ => self.from + random.below((self.to - self.from) as u64) as usize,
            };
            points.push(point(at, false));
        }
        for index in 1..after * times {
            let at = match index % 2 {
                0 => self.to + random.below((disk.now() - self.to) as u64 + 1) as usize,
                _ => self.to,
            };
            points.push(point(at, true));
        }
        for point in &mut points[1..] {
            point.chance = CHANCES[random.below(CHANCES.len() as u64) as usize];
            point.seed = random.below(u64::MAX);
        }
        points.sort_by_key(|point| point.at);
        points
    }
}

/// Cuts the power at each point and examines what is left; the test fails with all points at which that failed.
pub fn examine(disk: &VolatileDisk, points: &[Point], look: impl Fn(&Path, &Point) -> Result<()> + Sync) {
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for first in 0..THREADS {
            let (failures, look) = (&failures, &look);
            scope.spawn(move || {
                start_again();
                let mut platter = disk.platter();
                for point in points.iter().skip(first).step_by(THREADS) {
                    let cut = Cut::new();
                    platter.cut(point.at, point.chance, &mut Random::new(point.seed), cut.image());
                    if let Err(error) = cut.examine(|place| look(place, point)) {
                        let failure = format!("{point:?}: {error:#}");
                        failures.lock().expect("no holder panics").push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no holder panics");
    assert!(
        failures.is_empty(),
        "{} of {} power cuts: {failures:#?}",
        failures.len(),
        points.len()
    );
}

/// Makes this thread, and the programs it starts, take the machine for one that was started again.
///
/// What a program finds of its own from the same boot is complete, for the kernel would have written it in the end.
fn start_again() {
    const BOOT: &str = "/proc/sys/kernel/random/boot_id";
    mounts::enter_private().expect("a mount namespace; this test needs root");
    let file = tempfile::NamedTempFile::new().expect("a file");
    super::write(file.path(), "aaaaaaaa-0000-4000-8000-000000000000\n");
    run("mount", ["--bind", &file.path().display().to_string(), BOOT]);
}
