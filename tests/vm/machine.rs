//! A virtual machine during one test.

use crate::agent::Agent;
use crate::disk::{Disk, lock};
use crate::monitor::Monitor;
use crate::outside::Outside;
use crate::qemu::{self, Accelerator};
use crate::support::run;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

/// What makes up a machine that is off.
const FILES: [&str; 2] = ["disk.raw", "vars.fd"];

/// A running host; ended when dropped. A failed test leaves its logs in `target/vm/NAME`.
pub(crate) struct Machine {
    folder: PathBuf,
    accelerator: Accelerator,
    arguments: Vec<String>,
    process: Child,
    agent: Agent,
    boot_id: String,
}

impl Machine {
    /// Returns a booted host with a copy of the disk.
    ///
    /// The first boot of a disk is saved, and the next machine goes on from there.
    pub(crate) fn booted(name: &str, disk: &Disk) -> Self {
        let saved = disk.folder.join("state");
        let lock = lock(&disk.folder.join("lock"));
        if !saved.is_file() {
            let start = Instant::now();
            let mut machine = Self::start(copy(name, &disk.folder), disk, None);
            machine.save(disk);
            machine.tell(start, "the first boot and its saving");
        }
        drop(lock);
        let start = Instant::now();
        let machine = Self::start(copy(name, &disk.folder.join("saved")), disk, Some(&saved));
        machine.tell(start, "the restored boot");
        machine
    }

    /// Returns a host that boots for the first time, after its disk was changed from outside.
    pub(crate) fn changed(name: &str, disk: &Disk, change: impl FnOnce(&Outside) + Send) -> Self {
        let folder = copy(name, &disk.folder);
        Outside::of(name, &folder.join("disk.raw"), change);
        Self::start(folder, disk, None)
    }

    fn start(folder: PathBuf, disk: &Disk, state: Option<&Path>) -> Self {
        let arguments = qemu::arguments(&folder, disk.accelerator, &disk.credentials);
        let mut incoming = arguments.clone();
        if let Some(state) = state {
            incoming.extend(["-incoming".to_owned(), format!("exec:cat {}", state.display())]);
        }
        let process = qemu::start(&folder, &incoming);
        let agent = Agent::connect(&folder.join("agent.sock"), &folder.join("agent.log"));
        let mut machine = Self {
            folder,
            accelerator: disk.accelerator,
            arguments,
            process,
            agent,
            boot_id: String::new(),
        };
        if state.is_some() {
            machine.monitor().resume();
            machine.boot_id = machine
                .run("cat /proc/sys/kernel/random/boot_id")
                .trim()
                .to_owned();
        } else {
            machine.wait_for_boot();
        }
        machine
    }

    /// Saves the machine for later tests and ends it.
    fn save(&mut self, disk: &Disk) {
        // What still starts in the background would make the tests differ from run to run.
        self.run("systemctl is-system-running --wait || systemctl --failed --no-pager; sync");
        let saved = disk.folder.join("saved");
        let state = disk.folder.join("state.new");
        self.monitor().save(&state);
        self.end();
        copy_files(&self.folder, &saved);
        std::fs::rename(state, disk.folder.join("state")).expect("saved state");
    }

    /// Runs a script in the guest and returns what it wrote; the test fails when the script does.
    #[track_caller]
    pub(crate) fn run(&mut self, script: &str) -> String {
        let (status, text) = self.try_run(script);
        assert_eq!(status, 0, "in the guest: {script}\n{text}");
        text
    }

    /// Runs a script in the guest and returns its status and what it wrote.
    #[track_caller]
    pub(crate) fn try_run(&mut self, script: &str) -> (i32, String) {
        let start = Instant::now();
        let answer = self.ask(script);
        if start.elapsed() > Duration::from_secs(2) {
            self.tell(start, script.lines().next().unwrap_or_default());
        }
        answer
    }

    #[track_caller]
    fn ask(&mut self, script: &str) -> (i32, String) {
        let answer = self.agent.run(script, self.accelerator.allow(60));
        answer.unwrap_or_else(|| panic!("no answer in the guest to: {script}"))
    }

    /// Starts a script that the test does not wait for.
    pub(crate) fn start_script(&mut self, script: &str) {
        let (status, _) = self.try_run(&format!("({script}) >/run/background.log 2>&1 & true"));
        assert_eq!(status, 0);
    }

    /// Runs a script that may take many minutes; the test fails when the script does.
    #[track_caller]
    pub(crate) fn run_long(&mut self, script: &str) {
        let start = Instant::now();
        self.run("rm -f /run/status");
        self.start_script(&format!(
            "{script}; echo $? >/run/status.new; mv /run/status.new /run/status"
        ));
        let end = start + self.accelerator.allow(240);
        let wait = "for i in $(seq 100); do test -e /run/status && cat /run/status && break; sleep 0.5; done";
        let status = loop {
            let (_, status) = self.ask(wait);
            if !status.is_empty() || Instant::now() > end {
                break status;
            }
        };
        self.tell(start, script);
        assert_eq!(
            status.trim(),
            "0",
            "in the guest: {script}\n{}",
            self.run("cat /run/background.log")
        );
    }

    /// Reboots the guest in an orderly way and waits until it is up again.
    pub(crate) fn reboot(&mut self) {
        self.agent.send("systemctl reboot");
        self.wait_for_boot();
    }

    /// Switches the machine off in an orderly way, changes its disk from outside, and boots.
    pub(crate) fn change_while_off(&mut self, change: impl FnOnce(&Outside) + Send) {
        let start = Instant::now();
        self.agent.send("systemctl poweroff");
        while self.process.try_wait().expect("QEMU").is_none() {
            assert!(
                start.elapsed() < self.accelerator.allow(60),
                "no end of the shutdown"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        self.tell(start, "a shutdown");
        Outside::of(&self.name(), &self.folder.join("disk.raw"), change);
        self.power_on();
    }

    /// Cuts the power and boots again.
    pub(crate) fn cut_power(&mut self) {
        self.end();
        self.power_on();
    }

    fn power_on(&mut self) {
        self.process = qemu::start(&self.folder, &self.arguments);
        self.agent = Agent::connect(&self.folder.join("agent.sock"), &self.folder.join("agent.log"));
        self.wait_for_boot();
    }

    fn wait_for_boot(&mut self) {
        let start = Instant::now();
        let id = self
            .agent
            .ready(self.accelerator.allow(60))
            .expect("the guest does not come up");
        assert_ne!(id, self.boot_id, "the agent started again without a reboot");
        self.boot_id = id;
        self.tell(start, "a boot");
    }

    /// Tells the person who watches how long something took.
    fn tell(&self, start: Instant, what: &str) {
        crate::tell(&format!("{}:   {:.0?} for {what}", self.name(), start.elapsed()));
    }

    fn name(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn monitor(&self) -> Monitor {
        Monitor::try_connect(&self.folder.join("monitor.sock"), Duration::from_secs(10))
            .expect("QEMU's monitor")
    }

    fn end(&mut self) {
        // By the process we started, never by name; it may have ended already.
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Without QEMU there is nobody to ask.
        if std::thread::panicking() && self.process.try_wait().is_ok_and(|status| status.is_none()) {
            let journal = self.agent.run(
                "journalctl --no-pager -b; cat /run/background.log",
                Duration::from_secs(60),
            );
            let text = journal.map_or_else(|| "the guest did not answer".to_owned(), |(_, text)| text);
            if std::fs::write(self.folder.join("journal.log"), text).is_ok() {
                crate::tell(&format!("the logs are in {}", self.folder.display()));
            }
        }
        self.end();
        for file in FILES {
            if std::fs::remove_file(self.folder.join(file)).is_err() {
                crate::tell(&format!("{file} was gone already"));
            }
        }
    }
}

/// Makes the folder of a machine, with a copy of the disk and the firmware's variables in `from`.
fn copy(name: &str, from: &Path) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../vm").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("old logs");
    }
    copy_files(from, &folder);
    folder
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for file in FILES {
        let [from, to] = [from, to].map(|folder| folder.join(file).display().to_string());
        run("cp", ["--sparse=always", "--reflink=auto", &from, &to]);
    }
}
