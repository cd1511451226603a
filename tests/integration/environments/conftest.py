"""Tiny wheels, made here, and an index that serves them: nothing is fetched from anywhere else."""

import asyncio
import hashlib
import http.server
import importlib.util
import inspect
import sys
import threading
import zipfile

import psutil
import pytest
from blake3 import blake3

from fallow.model.environment import EnvironmentLock, LockedPackage, LockedWheel, encode_lock


def load(name, path):
    """Import a file that other folders' tests use, too."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run async tests of this folder on a loop of their own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


def _make_wheel(folder, name, version, files, requires=()):
    """Write a wheel, the same bytes for the same files; return its path."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    members = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    members[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*members, f"{info}/RECORD"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0)), text)
    return path


@pytest.fixture
def make_wheel():
    return _make_wheel


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Index:
    """A simple index (PEP 503) of the wheels in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.requests = []
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                index.requests.append(self.path)
                body, kind = index.answer(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body or b"")

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # who asked has gone
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path):
        kind, _, name = path.strip("/").partition("/")
        if kind == "files":
            file = self.folder / name
            return (file.read_bytes() if file.exists() else None), "application/octet-stream"
        links = "".join(
            f'<a href="/files/{file.name}#sha256={sha256_of(file)}">{file.name}</a>\n'
            for file in sorted(self.folder.glob(f"{name}-*.whl"))
        )
        return (links.encode() or None), "text/html"

    def add(self, name, version, files=None, requires=()):
        """Add a package with one module of its own name, unless `files` says otherwise; return how a lock names it."""
        path = _make_wheel(self.folder, name, version, files or {f"{name}.py": f"VERSION = {version!r}\n"}, requires)
        return LockedPackage(name, version, (sha256_of(path),))

    def fetched(self):
        """Return which wheels were fetched."""
        return [path.rpartition("/")[2] for path in self.requests if path.startswith("/files/")]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The index that this computer is configured for."""
    for name in ("UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    made = Index(tmp_path / "index")
    monkeypatch.setenv("UV_DEFAULT_INDEX", made.url)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where an embedded grid keeps environments
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    monkeypatch.setenv("FALLOW_CONFIG", str(tmp_path / "no-config.toml"))
    for name in ("FALLOW_HUB", "FALLOW_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield made
    made.close()


class Locks:
    """Files of locks, and of the blobs that they name, as a node's cache has them."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()

    def write(self, **fields):
        """Return digest and file of a lock."""
        data = encode_lock(EnvironmentLock(**({"python": PYTHON} | fields)))
        return self.blob(data)

    def blob(self, data):
        digest = blake3(data).hexdigest()
        (self.folder / digest).write_bytes(data)
        return digest, self.folder / digest

    def wheel(self, path):
        """Return how a lock names a wheel that travels, and where its blob lies."""
        digest, place = self.blob(path.read_bytes())
        return LockedWheel(path.name, digest, sha256_of(path)), {digest: place}


@pytest.fixture
def locks(tmp_path):
    return Locks(tmp_path / "blobs")


@pytest.fixture
def no_orphans():
    """Fail if a child process outlives the test."""
    yield
    left = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive, [process.cmdline() for process in alive]
