"""The memory of a process and of everything it starts, sampled from /proc.

Control groups would count it exactly and are missing in many containers. The cost of a sample does not depend on what is
measured: one listing of /proc, and one small file for each process of the tree.
"""

import os
import threading

INTERVAL = 0.02


def parent(stat):
    """Returns the parent's number from the text of /proc/PID/stat; the program's name may hold blanks and brackets."""
    return int(stat.rpartition(")")[2].split()[1])


def memory(status):
    """Returns the resident size and its highest value so far, in bytes, from the text of /proc/PID/status."""
    found = {"VmRSS": 0, "VmHWM": 0}
    for line in status.splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0]) * 1024
    return found["VmRSS"], found["VmHWM"]


class Tree:
    """The descendants of this process, with those whose parent has ended in between."""

    def __init__(self, proc="/proc"):
        self.proc = proc
        self.members = {os.getpid()}
        self.others = set()

    def sample(self):
        """Returns the resident size of all descendants together and the highest of one alone, in bytes."""
        present = {int(name) for name in os.listdir(self.proc) if name.isdigit()}
        self.members &= present | {os.getpid()}
        self.others &= present
        fresh = sorted(present - self.members - self.others)
        grown = True
        while grown:
            grown = False
            for pid in fresh:
                if pid not in self.members and self._parent(pid) in self.members:
                    self.members.add(pid)
                    grown = True
        # A child that has not been seen as one yet has a parent outside; what is inside stays inside.
        self.others |= set(fresh) - self.members
        total = highest = 0
        for pid in self.members - {os.getpid()}:
            resident, peak = memory(self._read(pid, "status"))
            total += resident
            highest = max(highest, peak)
        return total, highest

    def _parent(self, pid):
        stat = self._read(pid, "stat")
        return parent(stat) if stat else None

    def _read(self, pid, name):
        try:
            with open(f"{self.proc}/{pid}/{name}") as file:
                return file.read()
        except (FileNotFoundError, ProcessLookupError):
            return ""


class Sampler(threading.Thread):
    """Samples until it is told to stop; `peak` is the result in bytes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.tree = Tree()
        self.peak = 0
        self._stop_asked = threading.Event()

    def run(self):
        while not self._stop_asked.wait(INTERVAL):
            self.peak = max(self.peak, *self.tree.sample())

    def finish(self):
        """Stops and returns the peak in bytes."""
        self._stop_asked.set()
        self.join()
        return self.peak
