"""Runs commands as one measured thing: time, processor, memory, bytes over the wire, growth on the disk."""

import ctypes
import os
import subprocess
import time
from dataclasses import dataclass

from .processes import Sampler
from .shell import Failure, run

PR_SET_CHILD_SUBREAPER = 36
# Processes that a program leaves behind have this long to end; their processor time counts as the program's.
PATIENCE = 10.0


@dataclass
class Sample:
    """One run. Seconds and bytes; `wire`, `requests` and `disk` are None where they mean nothing."""

    wall: float
    cpu: float
    peak: int
    wire: int | None = None
    requests: int | None = None
    disk: int | None = None


def drop_caches():
    """Writes what is dirty and makes the kernel forget what it has read, as before every run of every contender."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as knob:
        knob.write("3")


def adopt():
    """Has processes that their parent leaves behind become children of this one, so that none escapes the count."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise Failure(f"prctl: {os.strerror(ctypes.get_errno())}")


def occupied(path):
    """Returns the bytes that a tree occupies on the disk; a file with several names counts once."""
    return int(run("du", "-sx", "--block-size=1", path).split()[0])


def measure(commands, *, traffic=None, grows=None, may_fail=False):
    """Drops the caches, runs the commands one after another and returns a Sample of all of them together.

    `traffic` counts what a registry serves meanwhile; `grows` is the directory whose growth is measured. With
    `may_fail` a command may end with an error.
    """
    before = occupied(grows) if grows else 0
    served = traffic.mark() if traffic else 0
    drop_caches()
    cpu = 0.0
    sampler = Sampler()
    sampler.start()
    start = time.monotonic()
    for command in commands:
        cpu += _execute([str(word) for word in command], may_fail)
    wall = time.monotonic() - start
    peak = sampler.finish()
    cpu += _reap_left_behind()
    sample = Sample(wall=wall, cpu=cpu, peak=peak)
    if traffic:
        sample.requests, sample.wire = traffic.since(served)
    if grows:
        os.sync()
        sample.disk = occupied(grows) - before
    return sample


def _execute(words, may_fail):
    """Runs one command; returns its seconds of processor with those of all children it waited for."""
    with open(f"/tmp/bench-stderr.{os.getpid()}", "w+") as errors:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        os.unlink(errors.name)
        if process.returncode and not may_fail:
            errors.seek(0)
            raise Failure(f"{' '.join(words)[:400]} ended with {process.returncode}: {errors.read()[-3000:]}")
    return usage.ru_utime + usage.ru_stime


def _reap_left_behind():
    """Waits for processes that outlived their parent; returns their seconds of processor."""
    seconds, deadline = 0.0, time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return seconds
        if pid:
            seconds += usage.ru_utime + usage.ru_stime
        else:
            time.sleep(0.01)
    raise Failure("a measured program left processes behind that do not end")
