"""Roots of real files for the large images: Debian packages of this machine's own sources, unpacked and not installed."""

import glob
import os
import random
import re

from .shell import Failure, run, say

# Patterns of package names; of several matches the newest is taken, so that the list holds for more than one release.
# Together about 100,000 files and 1.5 GB.
GROUPS = {
    # About 10,000 files: what every system has.
    "system": [
        "libc6-dev", "perl-modules-5[.0-9]+", "libpython3[.0-9]+-minimal", "libpython3[.0-9]+-stdlib", "python3-numpy",
        "python3-scipy", "python3-sympy", "gcc-[0-9]+", "cpp-[0-9]+", "g[+][+]-[0-9]+", "locales", "tzdata", "vim-runtime",
    ],
    # A small layer in the middle, which one case changes.
    "middle": ["python3-django"],
    # The fat layer: large programs.
    "fat": [
        "emacs-common", "libreoffice-common", "libreoffice-core", "libwebkit2gtk-4.1-0", "openjdk-[0-9]+-jre-headless",
        "texlive-latex-base", "texlive-latex-extra", "texlive-pictures",
    ],
    # Sources and headers: very many small files.
    "headers": ["linux-headers-[0-9][-.+0-9a-z]*-common", "libboost1[.0-9]+-dev", "golang-1[.0-9]+-src"],
    "sources": ["rust-src"],
}
KERNEL = "usr/lib/modules/6.1.0-bench"


def newest(pattern, names):
    """Returns the name that a pattern matches whose numbers are highest, or None."""
    found = [name for name in names if re.fullmatch(pattern, name)]
    return max(found, key=lambda name: [int(number) for number in re.findall("[0-9]+", name)], default=None)


def download(group, folder):
    """Downloads the packages of a group unless they are there; returns their paths."""
    os.makedirs(folder, exist_ok=True)
    names = run("apt-cache", "pkgnames").split()
    wanted = {pattern: newest(pattern, names) for pattern in GROUPS[group]}
    missing = [pattern for pattern, name in wanted.items() if not name]
    if missing:
        raise Failure(f"apt knows no package for {', '.join(missing)}; run apt-get update")
    absent = [name for name in wanted.values() if not glob.glob(f"{folder}/{glob.escape(name)}_*.deb")]
    if absent:
        say(f"  downloading {len(absent)} packages of the group {group}")
        run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *absent, cwd=folder)
    return [glob.glob(f"{folder}/{glob.escape(name)}_*.deb")[0] for name in wanted.values()]


def unpack(packages, root):
    """Unpacks packages into a root, with /bin, /lib and /sbin where a merged system has them."""
    os.makedirs(root, exist_ok=True)
    for package in packages:
        run("dpkg-deb", "--extract", package, root)
    for name in ("bin", "lib", "sbin", "lib64"):
        if os.path.isdir(f"{root}/{name}"):
            os.makedirs(f"{root}/usr/{name}", exist_ok=True)
            run("cp", "-a", f"{root}/{name}/.", f"{root}/usr/{name}")
            run("rm", "-r", f"{root}/{name}")


def skeleton(root):
    """Makes what every bootable image has besides packages; the kernel is noise, since nothing boots here."""
    noise = random.Random(1)
    for name in ("etc", "var", "tmp", "run", "proc", "sys", "dev", "boot", "sysroot", KERNEL, "usr/bin", "usr/lib", "usr/sbin"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    os.symlink("sysroot/ostree", f"{root}/ostree")
    for name in ("bin", "lib", "sbin"):
        os.symlink(f"usr/{name}", f"{root}/{name}")
    for name, size in (("vmlinuz", 8 << 20), ("initramfs.img", 8 << 20)):
        with open(f"{root}/{KERNEL}/{name}", "wb") as file:
            file.write(noise.randbytes(size))
    with open(f"{root}/usr/lib/os-release", "w") as file:
        file.write('ID=debian\nVERSION_ID="0"\nPRETTY_NAME="bench"\n')


def change(root, share):
    """Rewrites files that hold a share of all bytes; what is written compresses as before. Returns the bytes rewritten."""
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path):
                found.append((path, os.path.getsize(path)))
    wanted = share * sum(size for _, size in found)
    random.Random(2).shuffle(found)
    done = 0
    for path, size in sorted(found, key=lambda entry: entry[1] > wanted / 10):
        if done >= wanted or size > wanted / 10:
            break
        state = os.stat(path)
        with open(path, "rb") as file:
            content = file.read()
        # A new file: the old one may have other names.
        os.unlink(path)
        with open(path, "wb") as file:
            file.write(content[::-1])
        os.chmod(path, state.st_mode & 0o7777)
        done += size
    return done
