"""A layer of 1 GB as zstd:chunked, of which 1 % changes."""

from ..contenders import OursFromRegistry, Podman
from ..figures import Result, Target, memory


class OursFromThere(OursFromRegistry):
    """What is stored came from the registry as well, with the table of contents of its layer."""

    def seeder(self):
        return self


def partial(session):
    """1 % of a zstd:chunked layer of 1 GB changed"""
    session.offer(["partial", "partial-up"])
    contenders = [OursFromThere(session), Podman(session)]
    compared = session.upgrade("1 % of a zstd:chunked layer changed", contenders, "partial", "partial-up")
    [layer] = session.oci.layers("partial-up")
    wire = max(sample.wire for sample in compared.samples[OursFromThere.name])
    return Result([compared], [
        Target(
            "1 % of a zstd:chunked layer changed: bytes on the wire / bytes of the layer, %",
            100 * wire / layer["size"], 3, False, f"{wire / 1e6:.1f} MB of {layer['size'] / 1e6:.0f} MB",
        ),
        memory(compared, "apt-ostree"),
    ])


CASES = {"partial": partial}
