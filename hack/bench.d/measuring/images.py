"""The images of all cases: made once, kept below APT_OSTREE_CACHE/bench-images, found again by the next run.

A family is made as a whole. What it was made of is written down, and a family whose ingredients are others now is made
again. With every image goes the checksum of the tree that podman shows of it.
"""

import fcntl
import json
import os
import shutil

from . import checks, layers, packages, podman
from .oci import MANIFEST, Oci
from .shell import Failure, run, say

# Goes up when a recipe below changes.
RECIPES = 1
FAMILIES = {
    "base": ["base", "base-up"],
    "spread": ["base-64", "base-128"],
    "zstd": ["base-zstd"],
    "chunked": ["base-chunked"],
    "files": [
        "files-10k", "files-10k-up", "files-30k", "files-30k-up",
        "files-100k", "files-100k-up", "files-100k-middle", "files-100k-fat",
    ],
    "partial": ["partial", "partial-up"],
    "encapsulated": ["base-ostree", "base-ostree-up"],
    "encapsulated-files": ["files-100k-ostree"],
}

# What must be there first.
NEEDS = {"spread": "base", "zstd": "base", "chunked": "base", "encapsulated": "base", "encapsulated-files": "files"}
# An encapsulated image shows its files to ostree alone; the tree is that of the image it was made from.
ENCAPSULATED = "-ostree"


class Images:
    """The images, and how each is made."""

    def __init__(self, folder, example, tools):
        """`example` is the OCI directory of the example image, `tools` says where the program and its helpers are."""
        os.makedirs(folder, exist_ok=True)
        self.folder, self.example, self.tools = folder, example, tools
        self.oci = Oci(f"{folder}/oci")
        self.scratch = f"{folder}/scratch"
        self.debs = f"{folder}/debs"

    def ensure(self, tags):
        """Makes the images that are missing or stale."""
        wanted = {family for family, members in FAMILIES.items() if set(members) & set(tags)}
        wanted |= {NEEDS[family] for family in wanted if family in NEEDS}
        for family in FAMILIES:
            if family in wanted and not self._is_fresh(family):
                with open(f"{self.folder}/lock", "w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    self._make(family)

    def reference(self, tag):
        """Returns the checksum of the tree that podman shows of an image."""
        return self._state("references")[self.oci.descriptor(tag.replace(ENCAPSULATED, ""))["digest"]]

    def _is_made(self, family):
        present = set(FAMILIES[family]) <= set(self.oci.tags())
        return present and self._state("families").get(family) == self._key(family)

    def _unshown(self, family):
        """Returns the images of a family whose trees podman has not shown yet."""
        known = self._state("references")
        plain = [tag for tag in FAMILIES[family] if ENCAPSULATED not in tag]
        return [tag for tag in plain if self.oci.descriptor(tag)["digest"] not in known]

    def _is_fresh(self, family):
        return self._is_made(family) and not self._unshown(family)

    def _make(self, family):
        """Makes a family, and has podman show its images; an interrupted run is continued where it was."""
        if self._is_fresh(family):
            return
        say(f"making the images {', '.join(FAMILIES[family])}")
        shutil.rmtree(self.scratch, ignore_errors=True)
        os.makedirs(self.scratch)
        try:
            if not self._is_made(family):
                getattr(self, f"_make_{family.replace('-', '_')}")()
                self._write("families", {**self._state("families"), family: self._key(family)})
            for tag in self._unshown(family):
                shown = checks.shown_by_podman(f"oci:{self.oci.root}:{tag}", self.scratch)
                self._write("references", {**self._state("references"), self.oci.descriptor(tag)["digest"]: shown})
        finally:
            podman.unmount_below(self.scratch)
            shutil.rmtree(self.scratch)
        self._forget_blobs()

    def _key(self, family):
        if family in ("files", "partial", "encapsulated-files"):
            return str(RECIPES)
        with open(f"{self.example}/index.json") as file:
            return f"{RECIPES} {json.load(file)['manifests'][0]['digest']}"

    def _state(self, name):
        try:
            with open(f"{self.folder}/{name}.json") as file:
                return json.load(file)
        except FileNotFoundError:
            return {}

    def _write(self, name, value):
        with open(f"{self.folder}/{name}.json.new", "w") as file:
            json.dump(value, file, indent=1)
        os.rename(f"{self.folder}/{name}.json.new", f"{self.folder}/{name}.json")

    def _forget_blobs(self):
        """Removes blobs that no image names any more."""
        needed = {self.oci.descriptor(tag)["digest"] for tag in self.oci.tags()}
        for tag in self.oci.tags():
            needed |= set(self.oci.blobs(tag))
        for name in os.listdir(f"{self.oci.root}/blobs/sha256"):
            if f"sha256:{name}" not in needed:
                os.unlink(f"{self.oci.root}/blobs/sha256/{name}")

    def _upgrade(self, tag, compression="gzip"):
        """Makes TAG-up: the same image with one more file."""
        root = f"{self.scratch}/up"
        shutil.rmtree(root, ignore_errors=True)
        os.makedirs(f"{root}/usr/share")
        with open(f"{root}/usr/share/bench-version", "w") as file:
            file.write("a new version\n")
        added = layers.add_root(self.oci, root, self.scratch, compression)
        self.oci.add_image(f"{tag}-up", [*self.oci.layers(tag), added])

    def _make_base(self):
        run("skopeo", "copy", "--quiet", "--preserve-digests", f"oci:{self.example}", f"oci:{self.oci.root}:base")
        self._upgrade("base")

    def _make_spread(self):
        """The files of the base image in many layers of about the same size."""
        with podman.mounted(f"oci:{self.oci.root}:base", self.scratch) as root:
            found = layers.paths(root)
            for count in (64, 128):
                made = []
                for part in layers.spread(found, count):
                    layers.pack(root, part, f"{self.scratch}/layer.tar")
                    made.append(layers.add(self.oci, f"{self.scratch}/layer.tar", "gzip"))
                self.oci.add_image(f"base-{count}", made)

    def _recompressed(self, target, compression):
        """Returns the layers of the base image, compressed otherwise, as blobs of an OCI directory."""
        made, tar = [], f"{self.scratch}/layer.tar"
        for layer in self.oci.layers("base"):
            with open(self.oci.path(layer["digest"]), "rb") as packed, open(tar, "wb") as plain:
                layers.run_through(["gzip", "-dc"], packed, plain)
            made.append(layers.add(target, tar, compression))
        return made

    def _make_zstd(self):
        self.oci.add_image("base-zstd", self._recompressed(self.oci, "zstd"))

    def _make_chunked(self):
        # skopeo compresses what is not compressed, and leaves everything else as it is.
        plain = Oci(f"{self.scratch}/plain")
        plain.add_image("base", self._recompressed(plain, ""))
        self._chunk(plain.root, "base", "base-chunked")

    def _chunk(self, source, tag, target):
        """Compresses an image's layers as zstd:chunked with Debian 13's skopeo; Debian 12's writes an older form."""
        tool = f"{self.folder}/skopeo"
        if not os.path.exists(f"{tool}/usr/bin/skopeo"):
            tar = run(self.tools.image_root, "trixie", "skopeo")
            shutil.rmtree(tool, ignore_errors=True)
            os.makedirs(tool)
            run("tar", "-xf", tar, "-C", tool, "--exclude=./dev/*")
        os.makedirs(f"{tool}/source", exist_ok=True)
        os.makedirs(f"{tool}/target", exist_ok=True)
        run(
            "bwrap", "--bind", tool, "/", "--bind", source, "/source", "--bind", self.oci.root, "/target",
            "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--bind", self.scratch, "/var/tmp",
            "skopeo", "--insecure-policy", "copy", "--quiet", "--dest-compress-format", "zstd:chunked",
            f"oci:/source:{tag}", f"oci:/target:{target}",
        )
        if not all("zstd" in layer["mediaType"] for layer in self.oci.layers(target)):
            raise Failure(f"skopeo left the layers of {target} as they were")

    def _root(self, *groups):
        """Returns a root with the packages of some groups."""
        root = f"{self.scratch}/{'-'.join(groups)}"
        for group in groups:
            packages.unpack(packages.download(group, self.debs), root)
        return root

    def _make_files(self):
        """Three images, each the lower layers of the next: about 10,000, 30,000 and 100,000 files."""
        skeleton = f"{self.scratch}/skeleton"
        packages.skeleton(skeleton)
        stack = [layers.add_root(self.oci, skeleton, self.scratch)]
        changed = {}
        for group in packages.GROUPS:
            root = self._root(group)
            stack.append(layers.add_root(self.oci, root, self.scratch))
            if group in ("middle", "fat"):
                packages.change(root, 0.05)
                changed[group] = len(stack) - 1, layers.add_root(self.oci, root, self.scratch)
            shutil.rmtree(root)
            if group == "system":
                self.oci.add_image("files-10k", stack)
            if group == "fat":
                self.oci.add_image("files-30k", stack)
        self.oci.add_image("files-100k", stack)
        for group, (place, layer) in changed.items():
            self.oci.add_image(f"files-100k-{group}", [*stack[:place], layer, *stack[place + 1:]])
        for count in ("10k", "30k", "100k"):
            self._upgrade(f"files-{count}")

    def _make_partial(self):
        """One layer of 1 GB, and the same with 1 % of its bytes changed."""
        plain = Oci(f"{self.scratch}/plain")
        root = self._root("system", "fat")
        plain.add_image("partial", [layers.add_root(plain, root, self.scratch, "")])
        packages.change(root, 0.01)
        plain.add_image("partial-up", [layers.add_root(plain, root, self.scratch, "")])
        shutil.rmtree(root)
        for tag in ("partial", "partial-up"):
            self._chunk(plain.root, tag, tag)

    def _encapsulate(self, tag, target):
        """Has ostree-ext make an image of the commit that the program's import of another one made."""
        repo = f"{self.scratch}/repo"
        run("ostree", "init", "--mode=bare", f"--repo={repo}")
        run(self.tools.program, "image", "pull", "--quiet", "--repo", repo, f"ostree-unverified-image:oci:{self.oci.root}:{tag}")
        commit = run("ostree", f"--repo={repo}", "rev-parse", checks.image_ref(repo, tag))
        run(self.tools.ostree_ext, "encapsulate", repo, commit, f"{self.scratch}/encapsulated")
        run("skopeo", "copy", "--quiet", "--preserve-digests", f"oci:{self.scratch}/encapsulated", f"oci:{self.oci.root}:{target}")

    def _make_encapsulated(self):
        self._encapsulate("base", "base-ostree")
        self._upgrade_config("base-ostree")

    def _upgrade_config(self, tag):
        """Makes TAG-up of an encapsulated image, whose configuration must stay as it is but for the new layer."""
        self._upgrade(tag)
        added = self.oci.layers(f"{tag}-up")[-1]
        manifest = self.oci.manifest(tag)
        config = self.oci.read(manifest["config"]["digest"])
        config["rootfs"]["diff_ids"].append(added.pop("diff_id"))
        config.pop("history", None)
        digest, size = self.oci.add_json(config)
        manifest["config"].update(digest=digest, size=size)
        manifest["layers"].append(added)
        digest, size = self.oci.add_json(manifest)
        self.oci.name(f"{tag}-up", {"mediaType": MANIFEST, "digest": digest, "size": size})

    def _make_encapsulated_files(self):
        self._encapsulate("files-100k", "files-100k-ostree")
