"""An OCI directory that holds all images of the cases, so that what they share is there once."""

import hashlib
import json
import os
import shutil

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
NAME = "org.opencontainers.image.ref.name"


class Oci:
    """The directory; images are found by their tags."""

    def __init__(self, root):
        self.root = root
        os.makedirs(f"{root}/blobs/sha256", exist_ok=True)
        if not os.path.exists(f"{root}/oci-layout"):
            self._write("oci-layout", {"imageLayoutVersion": "1.0.0"})
            self._write("index.json", {"schemaVersion": 2, "manifests": []})

    def _write(self, name, value):
        with open(f"{self.root}/{name}.new", "w") as file:
            json.dump(value, file)
        os.rename(f"{self.root}/{name}.new", f"{self.root}/{name}")

    def _index(self):
        with open(f"{self.root}/index.json") as file:
            index = json.load(file)
        # skopeo takes the name away from what it replaces, and leaves it listed.
        index["manifests"] = [manifest for manifest in index["manifests"] if NAME in manifest.get("annotations", {})]
        return index

    def path(self, digest):
        """Returns the path of a blob."""
        return f"{self.root}/blobs/{digest.replace(':', '/')}"

    def read(self, digest):
        """Returns a blob that is JSON."""
        with open(self.path(digest)) as file:
            return json.load(file)

    def tags(self):
        """Returns the tags of all images."""
        return [m["annotations"][NAME] for m in self._index()["manifests"]]

    def descriptor(self, tag):
        """Returns the descriptor of an image's manifest."""
        found = [m for m in self._index()["manifests"] if m["annotations"][NAME] == tag]
        if len(found) != 1:
            raise KeyError(f"{len(found)} images are called {tag} in {self.root}")
        return found[0]

    def manifest(self, tag):
        """Returns the manifest of an image."""
        return self.read(self.descriptor(tag)["digest"])

    def layers(self, tag):
        """Returns the layers of an image, lowest first: their descriptors with `diff_id` added."""
        manifest = self.manifest(tag)
        diff_ids = self.read(manifest["config"]["digest"])["rootfs"]["diff_ids"]
        return [{**layer, "diff_id": diff_id} for layer, diff_id in zip(manifest["layers"], diff_ids)]

    def layer_paths(self, tag):
        """Returns the paths of an image's layers, lowest first."""
        return [self.path(layer["digest"]) for layer in self.manifest(tag)["layers"]]

    def blobs(self, tag):
        """Returns the digests of an image's configuration and layers."""
        manifest = self.manifest(tag)
        return [manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]

    def add_blob(self, path):
        """Moves a file in as a blob; returns its digest and size."""
        with open(path, "rb") as file:
            digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        size = os.path.getsize(path)
        shutil.move(path, self.path(digest))
        return digest, size

    def add_json(self, value):
        """Writes a blob; returns its digest and size."""
        data = json.dumps(value, sort_keys=True).encode()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        with open(self.path(digest), "wb") as file:
            file.write(data)
        return digest, len(data)

    def add_image(self, tag, layers):
        """Makes an image of layers that are in the directory, given as `layers` returns them."""
        config, config_size = self.add_json({
            "architecture": os.uname().machine.replace("x86_64", "amd64").replace("aarch64", "arm64"),
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {"Labels": {"containers.bootc": "1", "ostree.bootable": "1"}},
            "rootfs": {"type": "layers", "diff_ids": [layer["diff_id"] for layer in layers]},
        })
        listed = [{key: value for key, value in layer.items() if key != "diff_id"} for layer in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": config, "size": config_size},
            "layers": listed,
        }
        digest, size = self.add_json(manifest)
        self.name(tag, {"mediaType": MANIFEST, "digest": digest, "size": size})

    def name(self, tag, descriptor):
        """Gives a manifest a tag, which it takes away from another one."""
        index = self._index()
        others = [m for m in index["manifests"] if m["annotations"][NAME] != tag]
        index["manifests"] = [*others, {**descriptor, "annotations": {NAME: tag}}]
        self._write("index.json", index)
