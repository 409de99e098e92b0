//! Packages on top of an image: services that run, keep their users and data under an upgrade, and go without a trace.

use crate::disk::{Disk, packages};
use crate::guest::{check_health, check_repository, step};
use crate::machine::Machine;
use crate::shelf::Shelf;
use crate::support::archive::Archive;

/// The host's loopback device as a guest sees it.
const HOST: &str = "10.0.2.2";

const CLUSTER: &str = "systemctl is-active --quiet postgresql && runuser -u postgres -- psql -Atc";

#[test]
fn services_are_layered_upgraded_under_applied_live_and_uninstalled() {
    let disk = Disk::with("one", &[]);
    let shelf = Shelf::new();
    shelf.put("stable", "one");
    let mut archive = Archive::start();
    archive.publish_files(&packages());
    let mut machine = Machine::booted("layers", &disk);
    shelf.announce(&mut machine);
    use_archive(&mut machine, &archive);
    machine.run(&format!("apt-ostree rebase {}", shelf.reference("stable")));

    machine.run_long("apt-ostree install --assumeyes nginx postgresql openssh-server htop");
    machine.run("! command -v nginx && ! command -v htop");
    machine.reboot();
    check_health(&mut machine);
    check_services(&mut machine);
    machine.run("htop --version");
    machine.run(&format!("{CLUSTER} 'create table kept as select 42 as answer'"));
    let ids = ids(&mut machine);

    apply_live(&mut machine);

    // The next image has one of the packages itself.
    shelf.put("stable", "layers");
    machine.run_long("apt-ostree upgrade");
    machine.reboot();
    check_health(&mut machine);
    assert_eq!(step(&mut machine), "two");
    check_services(&mut machine);
    let answer = machine.run(&format!("{CLUSTER} 'select answer from kept'"));
    assert_eq!(answer.trim(), "42");
    assert_eq!(self::ids(&mut machine), ids, "ids stay the same over an upgrade");
    let dormant =
        machine.run("apt-ostree status --verbose | grep InactiveRequests; htop --version >/dev/null");
    assert!(dormant.contains("htop"), "{dormant}");

    machine.run_long("apt-ostree uninstall --assumeyes --all");
    machine.reboot();
    check_health(&mut machine);
    machine.run("! command -v nginx && ! command -v psql && test ! -e /usr/sbin/sshd && htop --version");
    // Nothing is left to derive: the deployment is the image's own commit.
    let reference = shelf.reference("stable");
    let image = machine.run(&format!(
        "apt-ostree image inspect {reference} | sed -n 's/^  \"commit\": \"\\(.*\\)\",$/\\1/p'"
    ));
    let booted = machine.run("apt-ostree status --jsonpath '$.deployments[?@.booted == true].checksum'");
    assert!(
        image.trim().len() == 64 && booted.contains(image.trim()),
        "{image} {booted}"
    );
    check_repository(&mut machine);
}

/// Lets the guest take packages from the host's repository only.
fn use_archive(machine: &mut Machine, archive: &Archive) {
    let sources = archive
        .sources("/etc/apt/keyrings/test.gpg")
        .replace("127.0.0.1", HOST);
    let key: String = archive
        .keyring()
        .iter()
        .map(|byte| format!("\\x{byte:02x}"))
        .collect();
    // A restored guest has the time it was saved at, when the signature had not been made.
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    machine.run(&format!(
        "date --set=@{now} && rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*\n\
         mkdir -p /etc/apt/keyrings && printf '{key}' >/etc/apt/keyrings/test.gpg\n\
         cat >/etc/apt/sources.list.d/test.sources <<'EOF'\n{sources}EOF"
    ));
}

/// Checks that each service runs and answers, and that files belong to its user.
fn check_services(machine: &mut Machine) {
    machine.run("systemctl is-active nginx ssh postgresql");
    let page = machine.run(
        "exec 3<>/dev/tcp/127.0.0.1/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3 | head -n 1",
    );
    assert!(page.contains("200 OK"), "{page}");
    let sum = machine.run(&format!("{CLUSTER} 'select 40 + 2'"));
    assert_eq!(sum.trim(), "42");
    let keys = machine.run("ssh-keyscan -T 20 127.0.0.1 2>/dev/null");
    assert!(keys.contains("ssh-ed25519"), "{keys}");
    machine.run(
        "test $(stat -c %U /var/lib/postgresql) = postgres && test $(stat -c %U:%G /var/log/nginx) = www-data:adm",
    );
}

/// Returns the ids of the users that the packages made.
fn ids(machine: &mut Machine) -> String {
    machine.run("id postgres; id sshd; stat -c '%u:%g %n' /var/lib/postgresql /var/lib/postgresql/*")
}

/// A tool and a service come to the running system, and go again.
fn apply_live(machine: &mut Machine) {
    machine.run_long("apt-ostree install --assumeyes tree redis-server");
    machine.run("! command -v tree && ! command -v redis-cli");
    machine.run_long("apt-ostree apply-live");
    let told = machine.run("cat /run/background.log");
    assert!(told.contains("systemctl start redis-server.service"), "{told}");
    machine.run("tree --version && dpkg-query -W redis-server");
    machine.run("systemctl start redis-server && redis-cli ping | grep -x PONG");
    machine.run("test $(stat -c %U /var/lib/redis) = redis && ! touch /usr/vmtest-probe");
    let status = machine.run("apt-ostree status --booted");
    assert!(
        status.contains("LiveCommit: ") && status.contains(" added"),
        "{status}"
    );
    machine.run("apt-ostree apply-live | grep 'there already'");

    machine.run("systemctl stop redis-server && apt-ostree apply-live --reset");
    machine.run("! command -v tree && ! command -v redis-cli && nginx -v");
    let status = machine.run("apt-ostree status --booted");
    assert!(!status.contains("LiveCommit"), "{status}");
}
