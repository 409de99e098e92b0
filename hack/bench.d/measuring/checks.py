"""What must be equal before a figure is printed: the checksums of whole trees, and what fsck says."""

import os
import shutil

from . import podman
from .shell import Failure, run

# What no image carries: paths whose content belongs to the running system.
VOLATILE = ("run", "tmp", "proc", "sys", "dev")


def root_of(repo, revision, path="/"):
    """Returns the checksum of all that is below a directory of a commit; no layer says what the root itself is like."""
    return run("ostree", f"--repo={repo}", "ls", "-d", "-C", revision, path).split()[-3]


def image_ref(repo, tag):
    """Returns the ref of an image that an import stored, of which there must be one."""
    escaped = "".join(c if c.isalnum() or c == "-" else f"_{ord(c):X}_" for c in tag)
    refs = run("ostree", f"--repo={repo}", "refs", "--list", "ostree/container/image").split()
    found = [ref for ref in refs if ref.endswith(f"_3A_{escaped}")]
    if len(found) != 1:
        raise Failure(f"{repo} holds the image {tag} {len(found)} times: {refs}")
    return found[0]


def require(what, found, wanted):
    """Ends the case when a result is not what it must be."""
    if found != wanted:
        raise Failure(f"{what}: the trees differ: {found} instead of {wanted}; no figure is printed")


def imported(what, repo, tag, wanted, sound=True):
    """Checks the tree that an import made and, with `sound`, the whole repository."""
    require(what, root_of(repo, image_ref(repo, tag)), wanted)
    if sound:
        run("ostree", "fsck", f"--repo={repo}", "--quiet")


def shown_by_podman(reference, scratch):
    """Commits what podman shows of an image, after the rules for paths, and returns the tree's checksum."""
    tree, repo = f"{scratch}/tree", f"{scratch}/shown"
    with podman.mounted(reference, scratch) as root:
        run("cp", "-a", root, tree)
    for name in VOLATILE:
        for entry in os.scandir(f"{tree}/{name}") if os.path.isdir(f"{tree}/{name}") else ():
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
    if os.path.isdir(f"{tree}/etc"):
        os.rename(f"{tree}/etc", f"{tree}/usr/etc")
    for name in ("hostname", "resolv.conf"):
        path = f"{tree}/usr/etc/{name}"
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            os.unlink(path)
    if not os.path.exists(repo):
        run("ostree", "init", "--mode=bare", f"--repo={repo}")
    run("ostree", f"--repo={repo}", "config", "set", "core.fsync", "false")
    commit = run("ostree", f"--repo={repo}", "commit", "--orphan", f"--tree=dir={tree}")
    shutil.rmtree(tree)
    return root_of(repo, commit)
