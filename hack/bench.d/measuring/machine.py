"""What the figures were measured on."""

import os
import platform
import re

from .shell import run


def first(path, start):
    """Returns the value of the first line of a file that begins so."""
    with open(path) as file:
        for line in file:
            if line.startswith(start):
                return line.partition(":")[2].strip()
    return ""


def disk(path):
    """Returns the kind of the file system that holds a path, and the disk below it with its driver or model."""
    source, kind = run("findmnt", "-no", "SOURCE,FSTYPE", "--target", path).split()
    name = os.path.basename(os.path.realpath(source))
    if os.path.exists(f"/sys/class/block/{name}/partition"):
        name = os.path.basename(os.path.dirname(os.path.realpath(f"/sys/class/block/{name}")))
    about = ""
    if os.path.exists(f"/sys/block/{name}/device/model"):
        with open(f"/sys/block/{name}/device/model") as file:
            about = file.read().strip()
    elif os.path.exists(f"/sys/block/{name}/device/driver"):
        about = os.path.basename(os.path.realpath(f"/sys/block/{name}/device/driver"))
    return {"file system": kind, "disk": f"{name}, {about}" if about else name}


def describe(work):
    """Returns the machine, the programs and the commit, as a table of names and values."""
    with open("/etc/os-release") as file:
        system = dict(line.rstrip().split("=", 1) for line in file if "=" in line)["PRETTY_NAME"].strip('"')
    ostree = next(line.split("'")[1] for line in run("ostree", "--version").splitlines() if "Version" in line)
    dirty = " with changes" if run("git", "status", "--porcelain", "--untracked-files=no") else ""
    return {
        "system": system,
        "kernel": re.match("[0-9.]+", platform.release())[0],
        "processor": first("/proc/cpuinfo", "model name"),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(first('/proc/meminfo', 'MemTotal').split()[0]) / 1e6:.1f} GB",
        **disk(work),
        "ostree": ostree,
        "podman": run("podman", "--version").split()[-1],
        "skopeo": run("skopeo", "--version").split()[2],
        "tar": run("tar", "--version").splitlines()[0].split()[-1],
        "load before": f"{os.getloadavg()[0]:.1f}",
        "commit": run("git", "rev-parse", "--short=12", "HEAD") + dirty,
    }
