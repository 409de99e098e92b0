"""A signed repository, plain roots and their comparison, for hack/bench.d/layer."""

import hashlib
import os
import shutil
import stat
import subprocess
import sys

SOURCE = "deb [signed-by=/etc/apt/keyrings/bench.gpg] http://127.0.0.1:{port} stable main\n"


def run(*command, **options):
    """Runs a program to its end and returns what it printed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(command)[:300]} failed: {done.stderr[-3000:]}")
    return done.stdout.strip()


def publish(debs, work):
    """Makes a signed repository of the packages and serves it; returns the server and apt's line for it."""
    archive = f"{work}/archive"
    os.makedirs(f"{archive}/pool")
    for name in os.listdir(debs):
        if name.endswith(".deb"):
            shutil.copy(f"{debs}/{name}", f"{archive}/pool/{name.replace('%3a', '.')}")
    os.makedirs(f"{archive}/dists/stable/main/binary-amd64")
    with open(f"{archive}/dists/stable/main/binary-amd64/Packages", "w") as index:
        index.write(run("apt-ftparchive", "packages", "pool", cwd=archive) + "\n")
    fields = {"Suite": "stable", "Codename": "stable", "Components": "main", "Architectures": "amd64"}
    options = [word for key, value in fields.items() for word in ("-o", f"APT::FTPArchive::Release::{key}={value}")]
    release = run("apt-ftparchive", *options, "release", "dists/stable", cwd=archive)
    home = f"{work}/gnupg"
    os.mkdir(home, 0o700)
    gpg = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
    run(*gpg, "--quick-generate-key", "bench", "rsa2048", "sign", "never")
    run(*gpg, "--clearsign", "-o", f"{archive}/dists/stable/InRelease", input=release + "\n")
    run(*gpg, "--export", "-o", f"{work}/bench.gpg")
    serve = "import http.server as h, sys; s = h.ThreadingHTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler); print(s.server_port, flush=True); s.serve_forever()"
    server = subprocess.Popen([sys.executable, "-c", serve], cwd=archive, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return server, SOURCE.format(port=int(server.stdout.readline()))


def use_source(etc, source, key):
    """Makes a root take packages from the repository and from nowhere else."""
    shutil.rmtree(f"{etc}/apt/sources.list.d", ignore_errors=True)
    os.makedirs(f"{etc}/apt/sources.list.d")
    os.makedirs(f"{etc}/apt/keyrings", exist_ok=True)
    shutil.copy(key, f"{etc}/apt/keyrings/bench.gpg")
    with open(f"{etc}/apt/sources.list", "w") as file:
        file.write(source)


def inside(root, *command, network=False):
    """Runs a program in a root, without the network."""
    words = ["bwrap", "--bind", root, "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run", "--perms", "1777", "--tmpfs", "/tmp"]
    words += ["--unshare-pid", "--setenv", "DEBIAN_FRONTEND", "noninteractive", "--setenv", "INITRD", "No"]
    words += ["--cap-add", "ALL"] + ([] if network else ["--unshare-net"])
    return run(*words, "--", *command)


def installed(root):
    """Returns the packages of a root with their versions."""
    return run("dpkg-query", f"--admindir={root}/usr/lib/sysimage/dpkg", "-W")


def files(root):
    """Returns what each path below /usr is: kind, permissions, owner by name, and content."""
    found = {}
    names = {}
    for kind in ("passwd", "group"):
        for place in (f"{root}/usr/etc/{kind}", f"{root}/etc/{kind}"):
            if os.path.exists(place):
                names[kind] = {int(line.split(":")[2]): line.split(":")[0] for line in open(place)}
                break
    for folder, folders, leaves in os.walk(f"{root}/usr"):
        for name in folders + leaves:
            path = os.path.join(folder, name)
            below = os.path.relpath(path, root)
            if is_expected(below):
                continue
            state = os.lstat(path)
            content = ""
            if stat.S_ISLNK(state.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(state.st_mode):
                content = hashlib.sha256(open(path, "rb").read()).hexdigest()
            owner = names["passwd"].get(state.st_uid, state.st_uid), names["group"].get(state.st_gid, state.st_gid)
            found[below] = (stat.filemode(state.st_mode), owner, content)
    return found


def is_expected(path):
    """Returns whether a path differs for a reason that docs/benchmarks.md gives."""
    own = ("usr/etc", "usr/share/factory", "usr/lib/sysimage", "usr/lib/tmpfiles.d/", "usr/lib/sysusers.d/", "usr/sbin/policy-rc.d")
    prepared = "apt-ostree" in path or path.endswith(("basic.target.wants", "/initramfs.img"))
    return path.startswith(own) or "__pycache__" in path or prepared


def compare(request, ours_root, plain):
    """Ends the run when the two roots hold other packages or files."""
    if installed(ours_root) != installed(plain):
        sys.exit(f"{request}: the packages differ")
    left, right = files(ours_root), files(plain)
    wrong = sorted(path for path in left.keys() | right.keys() if left.get(path) != right.get(path))
    if wrong:
        shown = "\n".join(f"  {path}: {left.get(path)} here, {right.get(path)} there" for path in wrong[:20])
        sys.exit(f"{request}: {len(wrong)} paths differ:\n{shown}")
