"""Garbage collection after an upgrade: what the old image needed alone goes."""

from .. import checks
from ..contenders import Contender, Ours
from ..figures import Result, Target, at_most, curve, median, memory
from ..shell import run
from .upgrade import COUNTS, FLAT


class Upgraded(Contender):
    """A repository in which an image was upgraded, and which was collected before, as that of a host was."""

    def seeder(self):
        return OursRemoves(self.session)

    def seed(self, place, tag):
        program, ours = self.session.tools.program, Ours(self.session)
        ours.seed(place, tag.removesuffix("-up"))
        run(program, "image", "prune", "--repo", f"{place}/repo")
        for command in ours.commands(place, tag):
            run(*command)

    def check(self, place, tag, first):
        checks.imported(self.name, f"{place}/repo", tag, self.session.images.reference(tag), sound=first)


class OursRemoves(Upgraded):
    """Forgets the old image, which collects what it needed alone."""

    name = "apt-ostree image remove"

    def commands(self, place, tag):
        old = Ours(self.session).reference(tag.removesuffix("-up"))
        return [[self.session.tools.program, "image", "remove", "--quiet", "--repo", f"{place}/repo", old]]


class Unnamed(Upgraded):
    """The ref of the old image is taken away before the measurement."""

    def derive(self, seed, place):
        super().derive(seed, place)
        refs = run("ostree", f"--repo={place}/repo", "refs", "--list", "ostree/container/image").split()
        old = [ref for ref in refs if not ref.endswith("-up")]
        run("ostree", f"--repo={place}/repo", "refs", "--delete", *old)


class OursPrunes(Unnamed):
    """Looks through everything, as it does when it is asked to."""

    name = "apt-ostree image prune"

    def commands(self, place, tag):
        return [[self.session.tools.program, "image", "prune", "--quiet", "--repo", f"{place}/repo"]]


class OstreePrunes(Unnamed):
    name = "ostree prune --refs-only"

    def commands(self, place, tag):
        return [["ostree", f"--repo={place}/repo", "prune", "--refs-only", "--depth=0"]]


def collection(session):
    """The old image removed after an upgrade, 10,000 to 100,000 files"""
    compared, targets = [], []
    for name, count in COUNTS.items():
        tag = f"files-{name}"
        session.offer([tag, f"{tag}-up"])
        contenders = [OursRemoves(session), OursPrunes(session), OstreePrunes(session)]
        compared.append(session.upgrade(f"Old image removed, {count:,} files", contenders, f"{tag}-up", f"{tag}-up"))
        targets.append(memory(compared[-1], "apt-ostree"))
    smallest, largest = (median(one.samples[OursRemoves.name]) for one in (compared[0], compared[-1]))
    targets.append(Target("Old image removed: 100,000 files / 10,000 files", largest / smallest, FLAT, False, f"{largest:.2f} s / {smallest:.2f} s"))
    targets.append(at_most(compared[-1], OursRemoves.name, OstreePrunes.name, 1))
    names = [OursRemoves.name, OursPrunes.name, OstreePrunes.name]
    return Result(compared, targets, [curve("Old image removed", "files of the image", compared, COUNTS.values(), names)])


CASES = {"collection": collection}
