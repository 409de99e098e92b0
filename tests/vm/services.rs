//! The packages that the layering stories put on an image, and what must hold when they run.

use crate::disk::packages;
use crate::machine::Machine;
use crate::support::archive::Archive;

/// The host's loopback device as a guest sees it.
const HOST: &str = "10.0.2.2";
/// Where a guest has the key of the repository.
pub(crate) const KEYRING: &str = "/etc/apt/keyrings/test.gpg";
/// What the long stories layer: three services and a tool.
pub(crate) const REQUESTS: &str = "nginx postgresql openssh-server htop";

const CLUSTER: &str = "systemctl is-active --quiet postgresql && runuser -u postgres -- psql -Atc";

/// Returns a repository with the downloaded packages.
pub(crate) fn archive() -> Archive {
    let mut archive = Archive::start();
    archive.publish_files(&packages());
    archive
}

/// Lets the guest take packages from the host's repository only.
pub(crate) fn use_archive(machine: &mut Machine, archive: &Archive) {
    let sources = archive.sources(KEYRING).replace("127.0.0.1", HOST);
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
         mkdir -p /etc/apt/keyrings && printf '{key}' >{KEYRING}\n\
         cat >/etc/apt/sources.list.d/test.sources <<'EOF'\n{sources}EOF"
    ));
}

/// Checks that each service runs and answers, and that files belong to its user.
pub(crate) fn check_services(machine: &mut Machine) {
    machine.run("systemctl is-active nginx ssh postgresql");
    let page = machine.run(
        "exec 3<>/dev/tcp/127.0.0.1/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3 | head -n 1",
    );
    assert!(page.contains("200 OK"), "{page}");
    let sum = machine.run(&format!("{CLUSTER} 'select 40 + 2'"));
    assert_eq!(sum.trim(), "42");
    let keys = machine.run("ssh-keyscan -T 20 127.0.0.1 2>/dev/null");
    assert!(keys.contains("ssh-ed25519"), "{keys}");
    let owners = machine.run("cd /var && stat -c %U:%G lib/postgresql log/postgresql log/nginx");
    assert_eq!(owners, "postgres:postgres\nroot:postgres\nroot:adm\n");
    machine.run("htop --version");
}

/// Puts data into the database.
pub(crate) fn keep_data(machine: &mut Machine) {
    machine.run(&format!("{CLUSTER} 'create table kept as select 42 as answer'"));
}

/// Checks that the data of [`keep_data`] is there, and that htop now comes from the image.
pub(crate) fn check_upgraded(machine: &mut Machine) {
    let answer = machine.run(&format!("{CLUSTER} 'select answer from kept'"));
    assert_eq!(answer.trim(), "42");
    let dormant = machine.run("apt-ostree status --verbose | grep InactiveRequests");
    assert!(dormant.contains("htop"), "{dormant}");
}

/// Checks that only what the image has is there.
pub(crate) fn check_gone(machine: &mut Machine) {
    machine.run(
        "cd /usr && test ! -e sbin/nginx && test ! -e bin/psql && test ! -e sbin/sshd && htop --version",
    );
}

/// Returns the ids of the users that the packages made.
pub(crate) fn ids(machine: &mut Machine) -> String {
    machine.run("id postgres; id sshd; stat -c '%u:%g %n' /var/lib/postgresql /var/lib/postgresql/*")
}

/// A tool and a service, layered and not booted, come to the running system and go again.
pub(crate) fn apply_live(machine: &mut Machine) {
    machine.run_long("apt-ostree install --assumeyes tree redis-server");
    machine.run("test ! -e /usr/bin/tree && test ! -e /usr/bin/redis-cli");
    machine.run_long("apt-ostree apply-live");
    let told = machine.run("cat /run/background.log");
    assert!(told.contains("systemctl start redis-server.service"), "{told}");
    machine.run("tree --version && dpkg-query -W redis-server");
    machine.run("systemctl start redis-server");
    check_redis(machine);
    machine.run("! touch /usr/vmtest-probe");
    let status = machine.run("apt-ostree status --booted");
    assert!(
        status.contains("LiveCommit: ") && status.contains(" added"),
        "{status}"
    );
    machine.run("apt-ostree apply-live | grep 'there already'");

    machine.run("systemctl stop redis-server && apt-ostree apply-live --reset");
    // By the files: the agent's shell remembers where it found a program.
    machine.run("test ! -e /usr/bin/tree && test ! -e /usr/bin/redis-cli");
    let status = machine.run("apt-ostree status --booted");
    assert!(!status.contains("LiveCommit"), "{status}");
}

/// Checks that redis answers, and that its files belong to its user.
pub(crate) fn check_redis(machine: &mut Machine) {
    machine.run("redis-cli ping | grep -x PONG && test $(stat -c %U /var/lib/redis) = redis");
}
