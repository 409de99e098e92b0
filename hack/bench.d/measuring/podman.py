"""podman with a storage of its own, so that what the machine's podman has makes no difference and is not touched."""

import contextlib
import json
import os
import shutil
import zlib

from .shell import run


def runroot(place):
    """Returns podman's folder for what lives until a restart; its path may have 50 characters, so it is elsewhere."""
    return f"/run/bench-podman-{zlib.crc32(os.path.realpath(place).encode()):x}"


def words(place):
    """Returns podman with the options that name the storage in a place."""
    return ["podman", f"--root={os.path.realpath(place)}/storage", f"--runroot={runroot(place)}"]


def forget(place):
    """Removes what podman keeps outside of the place."""
    shutil.rmtree(runroot(place), ignore_errors=True)


def digest(place, image):
    """Returns the digest of the manifest of what was pulled."""
    return json.loads(run(*words(place), "image", "inspect", image))[0]["Digest"]


@contextlib.contextmanager
def mounted(reference, place):
    """Yields what podman shows of an image, which it pulls into the storage and removes again."""
    image = run(*words(place), "pull", "--quiet", "--tls-verify=false", reference)
    try:
        yield run(*words(place), "image", "mount", image)
    finally:
        run(*words(place), "image", "unmount", image)
        run(*words(place), "image", "rm", "--all", "--force")
        unmount_below(place)
        forget(place)


def unmount_below(place):
    """Unmounts everything below a place; podman keeps its storage mounted onto itself."""
    with open("/proc/self/mounts") as mounts:
        inside = [line.split()[1] for line in mounts if line.split()[1].startswith(f"{place}/")]
    for mount in sorted(inside, reverse=True):
        run("umount", mount)
