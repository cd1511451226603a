import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading

import pytest


class Registry:
    """A registry of images on loopback, with what the protocol for pulling asks for."""

    def __init__(self):
        self.files = {"/v2/": (b"{}", "application/json")}
        files = self.files

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                data, kind = files.get(self.path, (b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}', None))
                self.send_response(200 if kind else 404)
                self.send_header("Content-Type", kind or "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Docker-Content-Digest", digest(data))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            do_HEAD = do_GET

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, name, tag, docker):
        """Serve an image that the daemon has."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "layers": [],
        }
        saved = b"".join(docker.get_image(f"{self.address}/{name}:{tag}"))
        with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
            contents = json.load(tar.extractfile("manifest.json"))[0]
            config = tar.extractfile(contents["Config"]).read()
            layers = [gzip.compress(tar.extractfile(layer).read(), 1) for layer in contents["Layers"]]
        kinds = ["application/vnd.docker.container.image.v1+json"]
        kinds += ["application/vnd.docker.image.rootfs.diff.tar.gzip"] * len(layers)
        entries = [
            {"mediaType": kind, "size": len(data), "digest": digest(data)}
            for kind, data in zip(kinds, [config, *layers], strict=True)
        ]
        manifest |= {"config": entries[0], "layers": entries[1:]}
        for data in (config, *layers):
            self.files[f"/v2/{name}/blobs/{digest(data)}"] = (data, "application/octet-stream")
        text = json.dumps(manifest).encode()
        for reference in (tag, digest(text)):
            self.files[f"/v2/{name}/manifests/{reference}"] = (text, manifest["mediaType"])


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def registry():
    registry = Registry()
    yield registry
    registry.server.shutdown()
    registry.server.server_close()
