//! A disk whose cache is lost when the power is cut, without a machine to cut it from.
//!
//! A loop device over a file served by this process ([`super::fuse_file`]): whatever the block layer writes, discards
//! or flushes is recorded in its order, and [`Platter::cut`] makes the disk as it may be after a power cut at any
//! point of that record. What came before the last flush is on the platter. Of what came after it, the disk may have
//! written any sector or none: a write that was acknowledged and not flushed is worth nothing.
//!
//! The loop device turns a flush of the block layer into an fsync of its file and has no writes that go past the
//! cache (FUA), so that the block layer makes those of a write and a flush. A write that was answered before a flush
//! counts as flushed. The sectors have the size of a block of the file system: ext4 keeps its promises only on a disk
//! that writes a block wholly or not at all.
//!
//! Nothing is kept in memory but the record's index.

use super::fuse_file::{Content, FuseFile};
use super::run;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use tempfile::TempDir;

const SECTOR: u64 = 4096;

/// What happened to the disk, by its position in the record.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Bytes were written at `offset`; they are in the data file at `kept`.
    Write {
        offset: u64,
        length: u64,
        kept: u64,
    },
    Zero {
        offset: u64,
        length: u64,
    },
    Flush,
}

/// The disk, with a file system mounted on it; everything is taken down when dropped.
pub struct VolatileDisk {
    mounted: Option<PathBuf>,
    loop_device: LoopDevice,
    record: Arc<Mutex<Record>>,
    size: u64,
    // Goes after the loop device that is made of it.
    _served: FuseFile,
    directory: TempDir,
}

impl VolatileDisk {
    /// Makes an empty disk of this many bytes.
    pub fn new(size: u64) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("directory");
        let record = Arc::new(Mutex::new(Record {
            current: sparse(&directory.path().join("current"), size),
            data: sparse(&directory.path().join("data"), 0),
            data_length: 0,
            events: Vec::new(),
        }));
        let file = directory.path().join("disk");
        File::create(&file).expect("a file");
        let served = FuseFile::serve(
            &file,
            Recorder {
                record: record.clone(),
                size,
            },
        );
        Self {
            mounted: None,
            loop_device: LoopDevice::over(&file),
            record,
            size,
            _served: served,
            directory,
        }
    }

    /// Makes a file system and mounts it; it writes its journal when it is asked to, and hardly ever by itself.
    pub fn mount_ext4(&mut self, place: &Path) {
        let device = self.loop_device.0.clone();
        run("mkfs.ext4", ["-q", "-b", "4096", "-E", "nodiscard", &device]);
        let options = "commit=300,noinit_itable";
        run("mount", ["-o", options, &device, &place.display().to_string()]);
        self.mounted = Some(place.to_owned());
    }

    /// Unmounts the file system, which writes what was not written before.
    pub fn unmount(&mut self) {
        if let Some(place) = self.mounted.take() {
            run("umount", [&place]);
        }
    }

    /// Returns the end of the record: what happens from now on comes behind it.
    pub fn now(&self) -> usize {
        self.record().events.len()
    }

    /// Returns the positions right behind each flush between two positions.
    pub fn flushes(&self, from: usize, to: usize) -> Vec<usize> {
        let record = self.record();
        let is_flush = |at: &usize| matches!(record.events[at - 1], Event::Flush);
        (from + 1..=to).filter(is_flush).collect()
    }

    /// Returns the disk as it is after the flushes before any position, to begin with the first one.
    pub fn platter(&self) -> Platter<'_> {
        let file = tempfile::NamedTempFile::new_in(self.directory.path()).expect("a file");
        file.as_file().set_len(self.size).expect("size");
        Platter {
            disk: self,
            file,
            position: 0,
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no holder panics")
    }
}

impl Drop for VolatileDisk {
    fn drop(&mut self) {
        if let Some(place) = self.mounted.take() {
            run_leniently("umount", &["-l", &place.display().to_string()]);
        }
    }
}

/// What has reached the platter up to a position of the record.
pub struct Platter<'a> {
    disk: &'a VolatileDisk,
    file: tempfile::NamedTempFile,
    position: usize,
}

impl Platter<'_> {
    /// Makes `image` the disk after a power cut at `position`, which is not before that of the last call.
    ///
    /// Of the sectors that were not flushed, each one is there with this chance (of 100).
    pub fn cut(&mut self, position: usize, chance: u64, random: &mut Random, image: &Path) {
        let record = self.disk.record();
        let events = &record.events[..position];
        let is_flush = |event: &Event| matches!(event, Event::Flush);
        let flushed = events.iter().rposition(is_flush).map_or(0, |last| last + 1);
        assert!(flushed >= self.position, "positions go forward");
        for event in &events[self.position..flushed] {
            record.replay(*event, self.file.as_file(), |_| true);
        }
        self.position = flushed;
        copy_sparse(self.file.as_file(), image, self.disk.size);
        let image = File::options().write(true).open(image).expect("the image");
        for event in &events[flushed..] {
            record.replay(*event, &image, |_| random.below(100) < chance);
        }
    }
}

struct Record {
    current: File,
    data: File,
    data_length: u64,
    events: Vec<Event>,
}

impl Record {
    /// Does to `target` what an event did, as far as `is_written` says so of each sector.
    fn replay(&self, event: Event, target: &File, mut is_written: impl FnMut(u64) -> bool) {
        let (offset, length) = match event {
            Event::Write { offset, length, .. } | Event::Zero { offset, length } => (offset, length),
            Event::Flush => return,
        };
        let mut sector = vec![0; SECTOR as usize];
        for at in (0..length).step_by(SECTOR as usize) {
            if !is_written(offset + at) {
                continue;
            }
            let bytes = &mut sector[..SECTOR.min(length - at) as usize];
            match event {
                Event::Write { kept, .. } => self.data.read_exact_at(bytes, kept + at).expect("data"),
                Event::Zero { .. } | Event::Flush => bytes.fill(0),
            }
            target.write_all_at(bytes, offset + at).expect("the disk");
        }
    }
}

/// What the loop device's file is served from.
struct Recorder {
    record: Arc<Mutex<Record>>,
    size: u64,
}

impl Recorder {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no holder panics")
    }
}

impl Content for Recorder {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length.min(self.size.saturating_sub(offset) as usize)];
        self.record().current.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let mut record = self.record();
        let (kept, length) = (record.data_length, bytes.len() as u64);
        record.data.write_all_at(bytes, kept)?;
        record.current.write_all_at(bytes, offset)?;
        record.data_length += length;
        record.events.push(Event::Write { offset, length, kept });
        Ok(())
    }

    fn zero(&mut self, offset: u64, length: u64) -> std::io::Result<()> {
        let mut record = self.record();
        let event = Event::Zero { offset, length };
        record.replay(event, &record.current, |_| true);
        record.events.push(event);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.record().events.push(Event::Flush);
        Ok(())
    }
}

/// A loop device; given back when dropped, and not before the file system on it is unmounted.
struct LoopDevice(String);

impl LoopDevice {
    fn over(file: &Path) -> Self {
        assert!(
            Path::new("/dev/loop-control").exists(),
            "/dev/loop-control is missing: this test needs loop devices"
        );
        let sector = format!("--sector-size={SECTOR}");
        let device = run(
            "losetup",
            ["--find", "--show", &sector, &file.display().to_string()],
        );
        Self(device.trim().to_owned())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        run_leniently("losetup", &["--detach", &self.0]);
    }
}

/// Random numbers that are the same for the same seed (SplitMix64).
pub struct Random(u64);

impl Random {
    /// Begins with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

fn sparse(path: &Path, size: u64) -> File {
    let options = File::options().read(true).write(true).create_new(true).open(path);
    let file = options.expect("a file");
    file.set_len(size).expect("size");
    file
}

/// Copies what is written of a sparse file.
fn copy_sparse(from: &File, to: &Path, size: u64) {
    let to = File::create(to).expect("a file");
    to.set_len(size).expect("size");
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(from, rustix::fs::SeekFrom::Data(at)) {
        let end = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(start)).expect("the end of data");
        let (mut from, mut to) = (from, &to);
        from.seek(SeekFrom::Start(start)).expect("seek");
        to.seek(SeekFrom::Start(start)).expect("seek");
        std::io::copy(&mut std::io::Read::take(from, end - start), &mut to).expect("a copy");
        at = end;
    }
}

/// Runs what undoes something, also while a test fails: a second failure would hide the first.
fn run_leniently(program: &str, arguments: &[&str]) {
    let output = apt_ostree::host::runner::Cmd::new(program)
        .args(arguments)
        .output();
    drop(output);
}
