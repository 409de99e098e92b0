"""One run of the script: the working folder, the registry, and how contenders take turns."""

import os
import re
from dataclasses import dataclass, field

from . import podman
from .figures import Comparison
from .measure import measure
from .registry import publish
from .shell import run, say


@dataclass
class Tools:
    """Paths of the programs that this repository builds."""

    program: str
    ostree_ext: str
    floor: str
    image_root: str


@dataclass
class Session:
    """What all cases share."""

    work: str
    runs: int
    tools: Tools
    images: object
    traffic: object
    address: str
    registry_content: str
    # An unchanged image is asked for by the name that it was stored under.
    same_reference: bool = False
    # Where upgrades begin, by the contender that made it, and for which image.
    seeds: dict = field(default_factory=dict)
    seeded: tuple | None = None

    @property
    def oci(self):
        """Returns the OCI directory of all images."""
        return self.images.oci

    def offer(self, tags):
        """Makes images if need be and has the registry serve them."""
        self.images.ensure(tags)
        for tag in tags:
            publish(self.oci, tag, self.registry_content)

    def clean(self):
        """Removes what a case left behind that ended early."""
        self._forget_seeds()
        for name in os.listdir(self.work):
            remove(f"{self.work}/{name}")

    def cold(self, title, contenders, tag):
        """Has contenders import an image into nothing, in turn; returns the comparison."""
        return self._alternate(title, contenders, tag, lambda contender, place: contender.prepare(place))

    def upgrade(self, title, contenders, before, after):
        """Has contenders import an image where another one is stored, in turn; returns the comparison."""
        # Cases in a row that begin with the same image share its seeds.
        if self.seeded != (before, before == after):
            self._forget_seeds()
            self.seeded = before, before == after
        self.same_reference = before == after
        for contender in contenders:
            maker = contender.seeder()
            if maker.name not in self.seeds:
                place = f"{self.work}/seed-{len(self.seeds)}"
                maker.seed(place, before)
                self.seeds[maker.name] = place
        return self._alternate(
            title, contenders, after,
            lambda contender, place: contender.derive(self.seeds[contender.seeder().name], place),
            undo=before != after,
        )

    def _forget_seeds(self):
        for place in self.seeds.values():
            remove(place)
        self.seeds.clear()
        self.seeded = None

    def _alternate(self, title, contenders, tag, prepare, undo=False):
        say(f"{title}:")
        samples = {contender.name: [] for contender in contenders}
        for number in range(self.runs):
            # Who comes first differs from round to round: what one leaves to the disk, another one meets.
            turn = number % len(contenders)
            places = []
            for contender in contenders[turn:] + contenders[:turn]:
                place = f"{self.work}/{number}-{re.sub('[^a-z0-9]+', '-', contender.name)}"
                prepare(contender, place)
                places.append(place)
                sample = measure(
                    contender.commands(place, tag),
                    traffic=self.traffic if contender.registry else None,
                    grows=contender.grows(place),
                    may_fail=contender.may_fail,
                )
                contender.check(place, tag, number == 0)
                if undo:
                    contender.undo(place, tag)
                samples[contender.name].append(sample)
                say(f"  {number + 1}. {contender.name}: {sample.wall:.2f} s, {sample.peak / 1e6:.0f} MB")
            for place in places:
                remove(place)
        return Comparison(title, samples)


def remove(place):
    """Removes a contender's folder, with what podman has mounted in it and what a deployment protects."""
    if os.path.islink(place):
        os.unlink(place)
        return
    podman.unmount_below(place)
    podman.forget(place)
    run("find", place, "-maxdepth", "7", "-path", "*/deploy/*.*", "-type", "d", "-exec", "chattr", "-i", "{}", "+")
    run("rm", "-rf", place)
    os.sync()
