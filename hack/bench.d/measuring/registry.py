"""What a real registry serves: its content is laid out by hard links, its traffic counted from its own log."""

import os
import re
import time

# The registry logs a response when it is complete: status and bytes of the body.
LINE = re.compile(r'"(GET|HEAD) (/v2/\S*) HTTP/[0-9.]+" ([0-9]{3}) ([0-9]+)')


def served(log):
    """Returns method, path, status and bytes of each response that a text of the log tells of."""
    return [(m[1], m[2], int(m[3]), int(m[4])) for m in LINE.finditer(log)]


class Traffic:
    """The registry's log as a counter."""

    def __init__(self, log):
        self.log = log

    def mark(self):
        """Returns a place in the log, to count from."""
        return os.path.getsize(self.log)

    def responses(self, mark):
        """Returns the responses since a mark, once the log has come to rest."""
        size = -1
        while size != os.path.getsize(self.log):
            size = os.path.getsize(self.log)
            time.sleep(0.2)
        with open(self.log) as file:
            file.seek(mark)
            return served(file.read())

    def since(self, mark):
        """Returns how many manifests and blobs were asked for since a mark, and the bytes of all bodies."""
        found = self.responses(mark)
        wanted = [path for _, path, _, _ in found if "/manifests/" in path or "/blobs/" in path]
        return len(wanted), sum(size for method, _, _, size in found if method == "GET")


def publish(oci, tag, content, name="bench"):
    """Lays an image of an OCI directory out as the registry keeps it; blobs are hard links, nothing is copied."""
    base = f"{content}/docker/registry/v2"
    manifest = oci.descriptor(tag)["digest"]
    repository = f"{base}/repositories/{name}"
    for digest in [manifest, *oci.blobs(tag)]:
        value = digest.partition(":")[2]
        target = f"{base}/blobs/sha256/{value[:2]}/{value}/data"
        if not os.path.exists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.link(oci.path(digest), target)
    _link(f"{repository}/_manifests/revisions/sha256/{manifest.partition(':')[2]}", manifest)
    _link(f"{repository}/_manifests/tags/{tag}/current", manifest)
    _link(f"{repository}/_manifests/tags/{tag}/index/sha256/{manifest.partition(':')[2]}", manifest)
    for digest in oci.blobs(tag):
        _link(f"{repository}/_layers/sha256/{digest.partition(':')[2]}", digest)


def _link(folder, digest):
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/link", "w") as file:
        file.write(digest)
