"""Layers out of a directory: which path belongs to which, tar archives of them, and their compression."""

import hashlib
import os
import subprocess

from .shell import run

LAYER = "application/vnd.oci.image.layer.v1.tar"
# Owners as numbers, one time for all, no times of access: the same files give the same archive.
TAR = [
    "tar", "--create", "--null", "--no-recursion", "--numeric-owner", "--format=posix", "--mtime=@1700000000",
    "--xattrs", "--xattrs-include=*", "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f",
]
COMPRESSION = {"gzip": ["gzip", "-6", "--no-name"], "zstd": ["zstd", "-3", "--quiet"], "": ["cat"]}


def paths(root):
    """Returns all paths below a root with the bytes of each, parents first, in the order of their names."""
    found = []
    for folder, folders, names in os.walk(root):
        folders.sort()
        below = os.path.relpath(folder, root)
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        if below != ".":
            found.append((below, 0))
        for name in sorted(names + links):
            path = os.path.normpath(os.path.join(below, name))
            found.append((path, os.lstat(os.path.join(root, path)).st_size))
    return found


def with_parents(selected):
    """Returns paths and all directories above them, parents first."""
    known, result = set(), []
    for path in selected:
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            above = "/".join(parts[:depth])
            if above not in known:
                known.add(above)
                result.append(above)
    return result


def spread(found, count):
    """Deals paths with their bytes into `count` lists of about the same work, which is bytes and a little for each path."""
    weight = sum(size + 4096 for _, size in found)
    result, done = [[] for _ in range(count)], 0
    for path, size in found:
        result[min(count - 1, done * count // weight)].append(path)
        done += size + 4096
    return [part for part in result if part]


def pack(root, selected, target):
    """Writes a tar archive of paths with their parents, and of nothing else."""
    names = "\0".join(with_parents(selected)) + "\0"
    run(*TAR, f"--directory={root}", "--files-from=-", f"--file={target}", input=names)


def add(oci, tar, compression):
    """Compresses a tar archive, which it removes, and takes it in as a blob; returns the layer as Oci.layers does."""
    with open(tar, "rb") as file:
        diff_id = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    with open(f"{tar}.packed", "wb") as packed, open(tar, "rb") as plain:
        run_through(COMPRESSION[compression], plain, packed)
    os.unlink(tar)
    digest, size = oci.add_blob(f"{tar}.packed")
    media_type = LAYER + (f"+{compression}" if compression else "")
    return {"mediaType": media_type, "digest": digest, "size": size, "diff_id": diff_id}


def run_through(command, source, target):
    """Runs a filter from one open file into another."""
    subprocess.run(command, stdin=source, stdout=target, check=True)


def add_root(oci, root, scratch, compression="gzip"):
    """Makes one layer of all that is below a root."""
    tar = f"{scratch}/layer.tar"
    pack(root, [path for path, _ in paths(root)], tar)
    return add(oci, tar, compression)
