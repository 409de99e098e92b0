//! `container prepare` on real Debian roots, and on roots that it must refuse.

use crate::support::{plain_root, run, write};
use apt_ostree::host::runner::Cmd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What the test roots hold besides the minimum, for each thing that `container prepare` takes care of.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "systemd-resolved",
    "dbus",
    "udev",
    "linux-image-cloud-amd64",
    "dracut",
    "ostree",
    "ostree-boot",
    "openssh-server",
    "ssl-cert",
    "nginx-light",
    "zstd",
];

struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    /// Unpacks a plain Debian root with a kernel.
    fn debian() -> Self {
        Self {
            folder: plain_root::unpack("trixie", PACKAGES),
        }
    }

    /// Makes a root that is just enough to be looked at.
    fn sketch() -> Self {
        let folder = tempfile::tempdir().expect("the test root can be used");
        for name in ["etc", "usr/lib", "boot"] {
            std::fs::create_dir_all(folder.path().join(name)).expect("the test root can be used");
        }
        Self { folder }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    fn text(&self, inside: &str) -> String {
        std::fs::read_to_string(self.path(inside)).unwrap_or_else(|error| panic!("{inside}: {error}"))
    }

    fn link(&self, inside: &str) -> String {
        let target =
            std::fs::read_link(self.path(inside)).unwrap_or_else(|error| panic!("{inside}: {error}"));
        target.to_string_lossy().into_owned()
    }

    fn program(&self, verb: &str) -> Cmd {
        Cmd::new(env!("CARGO_BIN_EXE_apt-ostree"))
            .args(["container", verb, "--rootfs"])
            .arg(self.folder.path())
    }

    fn prepare(&self) -> String {
        self.program("prepare")
            .run_text()
            .unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Runs `container prepare`, which must fail, and returns what it said.
    fn refusal(&self) -> String {
        let output = self
            .program("prepare")
            .output()
            .expect("the test root can be used");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("the test root can be used")
    }

    fn assert_clean(&self) {
        let output = self
            .program("lint")
            .arg("--fatal-warnings")
            .output()
            .expect("the test root can be used");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }

    /// Lists names, modes, owners, links, sizes and times of everything.
    fn listing(&self) -> String {
        let format = "%P %M %U:%G %l %s %T@\\n";
        let list = run(
            "find",
            [
                self.folder.path().to_str().expect("the test root can be used"),
                "-printf",
                format,
            ],
        );
        let mut lines: Vec<_> = list.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}

/// Returns name, mode, owner and link text of everything in `/var`.
fn state_of_var(root: &Path) -> Vec<String> {
    let var = root.join("var");
    let list = run(
        "find",
        [
            var.to_str().expect("the test root can be used"),
            "-mindepth",
            "1",
            "-printf",
            "%P %M %U:%G %l\\n",
        ],
    );
    let mut lines: Vec<_> = list.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn root_a_plain_debian_becomes_bootable_and_stays_so() {
    let root = Root::debian();
    write(root.path("var/lib/my app/a 1%\"q"), "kept");
    symlink("a b%c", root.path("var/lib/my app/l k")).unwrap();
    write(root.path("opt/vendor/bin/tool"), "tool");
    write(root.path("home/somebody/file"), "home");
    write(root.path("usr/local/bin/local"), "local");
    write(root.path("etc/nginx/x.conf.dpkg-dist"), "leftover");
    assert!(
        root.path("etc/ssh/ssh_host_ed25519_key").exists(),
        "the package made no key to remove"
    );
    let packages = run("dpkg-query", ["--root", root.path("").to_str().unwrap(), "-W"]);

    root.prepare();

    let kernels: Vec<_> = std::fs::read_dir(root.path("usr/lib/modules")).unwrap().collect();
    assert_eq!(kernels.len(), 1);
    let modules = kernels[0].as_ref().unwrap().path();
    assert!(modules.join("vmlinuz").is_file() && modules.join("initramfs.img").is_file());
    assert_eq!(std::fs::read_dir(root.path("boot")).unwrap().count(), 0);
    assert_eq!(
        run("dpkg-query", ["--root", root.path("").to_str().unwrap(), "-W"]),
        packages
    );
    assert_eq!(root.link("var/lib/dpkg"), "../../usr/lib/sysimage/dpkg");
    assert_eq!(
        root.link("var/lib/apt/extended_states"),
        "../../../usr/lib/sysimage/dpkg/extended_states"
    );
    for (link, target) in [
        ("home", "var/home"),
        ("root", "var/roothome"),
        ("opt", "var/opt"),
        ("ostree", "sysroot/ostree"),
    ] {
        assert_eq!(root.link(link), target);
    }
    assert_eq!(root.text("etc/machine-id"), "uninitialized\n");
    assert!(!root.path("etc/ssh/ssh_host_ed25519_key").exists());
    assert!(!root.path("etc/ssl/private/ssl-cert-snakeoil.key").exists());
    assert!(!root.path("etc/nginx/x.conf.dpkg-dist").exists());
    assert!(
        !root
            .path("etc/systemd/system/timers.target.wants/apt-daily.timer")
            .exists()
    );
    assert_eq!(root.text("usr/local/bin/local"), "local");
    assert_eq!(root.text("usr/lib/opt/vendor/bin/tool"), "tool");
    assert!(
        root.text("usr/lib/ostree/prepare-root.conf")
            .contains("enabled = no")
    );
    root.assert_clean();

    let before = root.listing();
    assert!(root.prepare().contains("its initramfs is unchanged"));
    let after = root.listing();
    let changed: Vec<_> = after
        .lines()
        .filter(|line| !before.lines().any(|old| old == *line))
        .collect();
    assert!(before == after, "the second run changed {changed:#?}");

    a_host_gets_everything_back(&root);
    a_derived_build_is_mended(&root);
}

/// Empties `/var` as on a new host and lets the image's own systemd-tmpfiles make it.
fn a_host_gets_everything_back(root: &Root) {
    let declared = state_of_var(&root.path(""));
    let files: Vec<_> = declared.iter().filter(|line| line.contains(" -r")).collect();
    assert!(files.is_empty(), "{files:#?}");
    let host = tempfile::tempdir().expect("the test root can be used");
    run(
        "cp",
        [
            "-a",
            root.path(".").to_str().expect("the test root can be used"),
            host.path().to_str().expect("the test root can be used"),
        ],
    );
    run(
        "find",
        [
            host.path()
                .join("var")
                .to_str()
                .expect("the test root can be used"),
            "-mindepth",
            "1",
            "-delete",
        ],
    );
    Cmd::new("bwrap")
        .arg("--bind")
        .arg(host.path())
        .args([
            "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run", "--tmpfs", "/sys",
        ])
        .args(["systemd-tmpfiles", "--create", "--prefix=/var"])
        .output()
        .expect("the test root can be used");
    let made = state_of_var(host.path());
    for line in &declared {
        // systemd writes these two as relative links, Debian's packages as absolute ones.
        if !line.starts_with("run ") && !line.starts_with("lock ") {
            assert!(made.contains(line), "not made on a host: {line}");
        }
    }
    let read =
        |path: &str| std::fs::read_to_string(host.path().join(path)).expect("the test root can be used");
    assert_eq!(read("var/lib/my app/a 1%\"q"), "kept");
    assert_eq!(read("var/home/somebody/file"), "home");
    assert_eq!(read("opt/vendor/bin/tool"), "tool");
    assert!(read("var/roothome/.bashrc").contains("bash"));
    assert!(read("var/www/html/index.nginx-debian.html").contains("nginx"));
    let partial = std::fs::metadata(host.path().join("var/cache/apt/archives/partial"))
        .expect("the test root can be used");
    assert_eq!(partial.permissions().mode() & 0o7777, 0o700);
    assert_ne!(partial.uid(), 0);
}

/// Leaves what package runs leave, and expects the next run to mend it.
fn a_derived_build_is_mended(root: &Root) {
    write(root.path("var/lib/pam/seen"), "changed");
    write(root.path("var/lib/new/state"), "new");
    write(root.path("etc/ssh/ssh_host_rsa_key"), "secret");
    write(root.path("etc/machine-id"), "0123456789abcdef0123456789abcdef\n");
    write(root.path("usr/lib/sysimage/dpkg/lock"), "");
    write(root.path("var/log/dpkg.log"), "log");
    // apt replaces links by files.
    std::fs::remove_file(root.path("var/lib/apt/extended_states")).expect("the test root can be used");
    write(root.path("var/lib/apt/extended_states"), "Package: new\n");
    let timers = root.path("etc/systemd/system/timers.target.wants");
    std::fs::create_dir_all(&timers).expect("the test root can be used");
    symlink(
        "/usr/lib/systemd/system/apt-daily.timer",
        timers.join("apt-daily.timer"),
    )
    .expect("the test root can be used");
    let lint = root.program("lint").output().expect("the test root can be used");
    assert_eq!(lint.status.code(), Some(1));

    assert!(root.prepare().contains("its initramfs is unchanged"));
    root.assert_clean();
    assert_eq!(root.text("usr/share/factory/var/lib/pam/seen"), "changed");
    assert_eq!(root.text("usr/share/factory/var/lib/new/state"), "new");
    assert_eq!(
        root.text("usr/lib/sysimage/dpkg/extended_states"),
        "Package: new\n"
    );

    // What goes into the initramfs changes, so it is made again; and a purged kernel leaves only our own files.
    write(
        root.path("etc/dracut.conf.d/test.conf"),
        "add_drivers+=\" loop \"\n",
    );
    let old = root.path("usr/lib/modules/1.0-gone");
    write(old.join("vmlinuz"), "kernel");
    assert!(root.prepare().contains("its initramfs was made"));
    assert!(!old.exists());
    root.assert_clean();
}

#[test]
fn a_root_without_kernel_or_with_two_is_refused() {
    let root = Root::sketch();
    let said = root.refusal();
    assert!(
        said.contains("has no kernel") && said.contains("hint: run apt-get install linux-image"),
        "{said}"
    );
    write(root.path("boot/vmlinuz-6.1-amd64"), "kernel");
    let said = root.refusal();
    assert!(said.contains("6.1-amd64 has no modules"), "{said}");
    for kernel in ["6.1-amd64", "6.12-amd64"] {
        write(
            root.path(&format!("usr/lib/modules/{kernel}/modules.builtin")),
            "",
        );
    }
    write(root.path("usr/lib/modules/6.12-amd64/vmlinuz"), "kernel");
    let said = root.refusal();
    assert!(
        said.contains("2 kernels and must have one: 6.1-amd64, 6.12-amd64"),
        "{said}"
    );
    std::fs::remove_dir_all(root.path("usr/lib/modules/6.12-amd64")).unwrap();
    let said = root.refusal();
    assert!(said.contains("no dracut with the ostree module"), "{said}");
    assert!(root.path("usr/lib/modules/6.1-amd64/vmlinuz").is_file());
}

#[test]
fn something_else_than_a_debian_root_is_refused() {
    let root = Root::sketch();
    std::fs::remove_dir(root.path("etc")).unwrap();
    assert!(root.refusal().contains("no Debian root"));
}

#[test]
fn root_derived_images_have_a_right_package_database() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/images");
    run(&script.to_string_lossy(), ["--release", "trixie"]);
    let folder = tempfile::tempdir().unwrap();
    for name in ["base", "server"] {
        let container = run("podman", ["create", &format!("localhost/{name}:trixie")]);
        let archive = folder.path().join(format!("{name}.tar"));
        run(
            "podman",
            ["export", "-o", archive.to_str().unwrap(), container.trim()],
        );
        run("podman", ["rm", container.trim()]);
        std::fs::create_dir(folder.path().join(name)).unwrap();
        let target = folder.path().join(name);
        run(
            "tar",
            ["-xpf", archive.to_str().unwrap(), "-C", target.to_str().unwrap()],
        );
    }
    let packages = |name: &str| {
        let root = folder.path().join(name);
        run(
            "dpkg-query",
            [
                "--root",
                root.to_str().unwrap(),
                "-W",
                "-f",
                "${Package} ${db:Status-Abbrev}\n",
            ],
        )
    };
    let (base, server) = (packages("base"), packages("server"));
    assert!(base.contains("ostree-boot ii") && !base.contains("nginx"));
    assert!(server.contains("nginx-light ii") && server.contains("ostree-boot ii"));
    assert!(server.lines().all(|line| line.ends_with("ii ")), "{server}");
    let server = folder.path().join("server");
    assert!(!server.join("etc/ssh/ssh_host_rsa_key").exists());
    assert!(
        server
            .join("usr/lib/systemd/system/ssh.service.d/10-apt-ostree-keys.conf")
            .is_file()
    );
    // Without a change to what dracut takes, the layer of the derived image holds no second initramfs.
    let same = |path: &str| {
        let read = |name: &str| std::fs::read(folder.path().join(name).join(path)).unwrap();
        read("base") == read("server")
    };
    assert!(same("usr/lib/sysimage/apt-ostree/initramfs"));
}
