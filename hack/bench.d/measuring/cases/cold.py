"""The first import of an image, into an empty repository."""

from ..contenders import (
    CheckoutAndCommit, Inflate, InflateAndHash, Ours, OursEncapsulated, OursFromRegistry, OstreeExt, Podman, Tar,
)
from ..figures import Result, at_most, faster, memory

PLAIN = [Ours, OursFromRegistry, CheckoutAndCommit, Podman, Tar]
WITH_FLOORS = [*PLAIN, Inflate, InflateAndHash]
WITH_OSTREE_EXT = [*WITH_FLOORS, OursEncapsulated, OstreeExt]


def case(title, tag, classes, than_commit, than_tar=None):
    """Returns a case: `than_commit` times faster than checkout and commit, at most `than_tar` of the time of tar."""
    def run(session):
        wanted = [tag, f"{tag}-ostree"] if OstreeExt in classes else [tag]
        session.offer(wanted)
        compared = session.cold(title, [contender(session) for contender in classes], tag)
        targets = [faster(compared, Ours.name, CheckoutAndCommit.name, than_commit)]
        if OstreeExt in classes:
            targets.append(faster(compared, OursEncapsulated.name, OstreeExt.name, 4))
        if than_tar:
            targets.append(at_most(compared, Ours.name, Tar.name, than_tar))
        targets.append(memory(compared, "apt-ostree"))
        return Result([compared], targets)
    run.__doc__ = title
    return run


CASES = {
    "cold": case("Cold import, few fat gzip layers", "base", WITH_OSTREE_EXT, 4, 0.65),
    "cold-64": case("Cold import, 64 small layers", "base-64", PLAIN, 4),
    "cold-128": case("Cold import, 128 small layers", "base-128", PLAIN, 5),
    "cold-zstd": case("Cold import, zstd layers", "base-zstd", WITH_FLOORS, 4),
    "cold-chunked": case("Cold import, zstd:chunked layers", "base-chunked", PLAIN, 4),
    "cold-big": case("Cold import, 1.5 GB and 100,000 files", "files-100k", WITH_OSTREE_EXT, 4, 0.5),
}
