"""An image of which most is stored already."""

from ..contenders import CheckoutAndCommit, Ours, OursEncapsulated, OursFromRegistry, OstreeExt, Podman
from ..figures import Result, Target, curve, faster, median, memory

PLAIN = [Ours, OursFromRegistry, CheckoutAndCommit, Podman]
COUNTS = {"10k": 10_000, "30k": 30_000, "100k": 100_000}
# How much slower an upgrade may be where the image has ten times as many files.
FLAT = 1.3


def one_file(session):
    """One new file on images of 10,000, 30,000 and 100,000 files"""
    compared, targets = [], []
    for name, count in COUNTS.items():
        before = f"files-{name}"
        session.offer([before, f"{before}-up"])
        compared.append(session.upgrade(
            f"One new file, {count:,} files", [contender(session) for contender in PLAIN], before, f"{before}-up",
        ))
        targets.append(memory(compared[-1], "apt-ostree"))
    smallest, largest = (median(one.samples[Ours.name]) for one in (compared[0], compared[-1]))
    targets.append(faster(compared[-1], Ours.name, CheckoutAndCommit.name, 15))
    targets.append(Target("One new file: 100,000 files / 10,000 files", largest / smallest, FLAT, False, f"{largest:.2f} s / {smallest:.2f} s"))
    names = [Ours.name, CheckoutAndCommit.name, Podman.name]
    return Result(compared, targets, [curve("One new file", "files of the image", compared, COUNTS.values(), names)])


def case(title, before, after, classes, than_commit=None):
    """Returns a case of one upgrade, so many times faster than checkout and commit."""
    def run(session):
        tags = [before, after]
        if OstreeExt in classes:
            tags += [f"{before}-ostree", f"{before}-ostree-up"]
        session.offer(tags)
        compared = session.upgrade(title, [contender(session) for contender in classes], before, after)
        targets = [memory(compared, "apt-ostree")]
        if than_commit:
            targets.append(faster(compared, Ours.name, CheckoutAndCommit.name, than_commit))
        return Result([compared], targets)
    run.__doc__ = title
    return run


def unchanged(session):
    """The image that is stored is asked for again"""
    session.offer(["base", "base-ostree"])
    classes = [OursFromRegistry, OstreeExt, Podman]
    compared = session.upgrade("Nothing new", [contender(session) for contender in classes], "base", "base")
    requests = max(sample.requests for sample in compared.samples[OursFromRegistry.name])
    return Result([compared], [
        Target("Nothing new: requests of apt-ostree", requests, 1, False, "one manifest"),
        memory(compared, "apt-ostree"),
    ])


CASES = {
    "upgrade": one_file,
    "upgrade-middle": case("A middle layer changed, 100,000 files", "files-100k", "files-100k-middle", PLAIN, 5),
    "upgrade-fat": case("5 % of a fat layer changed, 100,000 files", "files-100k", "files-100k-fat", PLAIN),
    "upgrade-small": case(
        "One new file, example image", "base", "base-up",
        [*PLAIN, OursEncapsulated, OstreeExt],
    ),
    "unchanged": unchanged,
}
