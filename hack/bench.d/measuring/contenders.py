"""Those who are compared: how each is prepared, the commands that are measured, and how its result is checked.

A contender works in a folder of its own below the working folder, `place`. It is asked for its commands once the folder
is ready, and its result is checked before its figures count.
"""

import os
import re

from . import checks, podman
from .shell import run

# What build tools leave behind when these are empty, which no import keeps.
LEFT_BEHIND = ("hostname", "resolv.conf")
# ostree-ext 0.15.3 leaves names in /etc that need a PAX header where they are.
MOVE_ETC = 'if test -d "$0/etc"; then cp -a "$0/etc/." "$0/usr/etc/" && rm -r "$0/etc"; fi'


class Contender:
    """One side of a comparison; `name` is what tables call it."""

    name = ""
    # Whether the registry serves what is measured.
    registry = False
    # tar ends with 2 where a layer replaces a directory by a link; it unpacks the rest, and only its time counts.
    may_fail = False

    def __init__(self, session):
        self.session = session

    def prepare(self, place):
        """Makes the folder ready, before anything is measured."""
        os.makedirs(place)

    def commands(self, place, tag):
        """Returns the commands that are measured."""
        raise NotImplementedError

    def check(self, place, tag, first):
        """Ends the case when the result is wrong; `first` asks for the thorough checks too."""

    def grows(self, place):
        """Returns the directory whose growth is measured."""
        return os.path.realpath(place)

    # Upgrades start from a seed, which is made once and used by every run.

    def seeder(self):
        """Returns the contender that makes the seed."""
        return self

    def seed(self, place, tag):
        """Makes a place that holds an image."""
        self.prepare(place)
        for command in self.commands(place, tag):
            run(*command)

    def derive(self, seed, place):
        """Makes a place that begins where the seed is; what both hold is not written again."""
        run("cp", "-al", seed, place)

    def undo(self, place, tag):
        """Takes back what a run did to the seed, where a place is no copy."""


class Ours(Contender):
    """The program, from an OCI directory."""

    name = "apt-ostree, oci:"

    def prepare(self, place):
        os.makedirs(place)
        run("ostree", "init", "--mode=bare", f"--repo={place}/repo")

    def reference(self, tag):
        """Returns the reference of an image."""
        return f"ostree-unverified-image:oci:{self.session.oci.root}:{tag}"

    def commands(self, place, tag):
        return [[self.session.tools.program, "image", "pull", "--quiet", "--repo", f"{place}/repo", self.reference(tag)]]

    def check(self, place, tag, first):
        checks.imported(self.name, f"{place}/repo", tag, self.session.images.reference(tag), sound=first)


class OursFromRegistry(Ours):
    """The program, from the registry."""

    name = "apt-ostree, registry"
    registry = True

    def reference(self, tag):
        return f"ostree-unverified-registry:{self.session.address}/bench:{tag}"

    def seeder(self):
        # Which transport the layers came by makes no difference to the next pull.
        return self if self.session.same_reference else Ours(self.session)


class Encapsulated:
    """Mixed into contenders that read the encapsulated image instead."""

    def commands(self, place, tag):
        return super().commands(place, encapsulated(tag))

    def check(self, place, tag, first):
        super().check(place, encapsulated(tag), first)

    def seeder(self):
        return self


def encapsulated(tag):
    """Returns the tag of an image as ostree-ext encapsulated it."""
    return f"{tag[:-3]}-ostree-up" if tag.endswith("-up") else f"{tag}-ostree"


class OursEncapsulated(Encapsulated, OursFromRegistry):
    name = "apt-ostree, registry, encapsulated"


class OstreeExt(Encapsulated, OursFromRegistry):
    """The importer of ostree-ext 0.15.3, which reads encapsulated images only."""

    name = "ostree-ext 0.15.3, registry, encapsulated"

    def commands(self, place, tag):
        reference = OursFromRegistry.reference(self, encapsulated(tag))
        return [[self.session.tools.ostree_ext, "import", f"{place}/repo", reference]]


class CheckoutAndCommit(Contender):
    """What bootc's ostree path does on plain images: commit each layer, check all out over each other, commit that.

    ostree-ext's own code filters each layer and gives it to `ostree commit --tree=tar`; the rest is done by ostree's tools.
    """

    name = "checkout and commit"

    def prepare(self, place):
        os.makedirs(place)
        run("ostree", "init", "--mode=bare", f"--repo={place}/repo")

    def commands(self, place, tag):
        ostree, tree = ["ostree", f"--repo={place}/repo"], f"{place}/repo/tmp/merge"
        known = self._stored(place)
        commands, refs = [], []
        for layer in self.session.oci.layers(tag):
            path, digest = self.session.oci.path(layer["digest"]), layer["digest"].partition(":")[2]
            ref = known.get(layer["digest"])
            if not ref:
                ref = f"bench/{digest}"
                commands.append([self.session.tools.ostree_ext, "layer", f"{place}/repo", path, layer["mediaType"], ref])
            refs.append(ref)
        commands += [[*ostree, "checkout", "--union", "--whiteouts", "-H", ref, tree] for ref in refs]
        commands.append(["sh", "-c", MOVE_ETC, tree])
        left_behind = ["(", "-name", LEFT_BEHIND[0], "-o", "-name", LEFT_BEHIND[1], ")"]
        commands.append(["find", f"{tree}/usr/etc", "-maxdepth", "1", "-empty", *left_behind, "-delete"])
        commands.append([*ostree, "commit", "--branch=bench/merged", "--link-checkout-speedup", f"--tree=dir={tree}"])
        return commands

    def check(self, place, tag, first):
        wanted = self.session.images.reference(tag)
        checks.require(self.name, checks.root_of(f"{place}/repo", "bench/merged"), wanted)

    def seeder(self):
        return Ours(self.session)

    @staticmethod
    def _stored(place):
        """Returns the refs of the layers that the repository holds, by digest."""
        refs = run("ostree", f"--repo={place}/repo", "refs", "--list", "ostree/container/blob").split()
        return {re.sub("_([0-9A-F]{2})_", lambda m: chr(int(m[1], 16)), ref.split("/")[-1]): ref for ref in refs}


class Podman(Contender):
    """`podman pull` into a storage of its own."""

    name = "podman pull, registry"
    registry = True

    def commands(self, place, tag):
        return [[*podman.words(place), "pull", "--quiet", "--tls-verify=false", f"{self.session.address}/bench:{tag}"]]

    def check(self, place, tag, first):
        found = podman.digest(place, f"{self.session.address}/bench:{tag}")
        checks.require(self.name, found, self.session.oci.descriptor(tag)["digest"])

    def derive(self, seed, place):
        # A storage cannot be copied by links; the new image is removed again after each run.
        os.symlink(seed, place)

    def undo(self, place, tag):
        run(*podman.words(place), "image", "rm", f"{self.session.address}/bench:{tag}")


class Tar(Contender):
    """`tar -x` of the layers in turn: nothing verified, nothing synced, whiteouts not heeded."""

    name = "tar -x"
    may_fail = True

    def commands(self, place, tag):
        kind = {"gzip": "-z", "zstd": "--zstd"}
        layers = self.session.oci.layers(tag)
        kinds = [kind[layer["mediaType"].rpartition("+")[2]] for layer in layers]
        paths = [self.session.oci.path(layer["digest"]) for layer in layers]
        return [["tar", word, "-xf", path, "-C", place] for word, path in zip(kinds, paths)]


class Inflate(Contender):
    """Inflates the layers and forgets the result."""

    name = "floor: inflate"
    mode = "inflate"

    def commands(self, place, tag):
        return [[self.session.tools.floor, self.mode, *self.session.oci.layer_paths(tag)]]

    def grows(self, place):
        return None


class InflateAndHash(Inflate):
    name = "floor: inflate and SHA-256"
    mode = "hash"
