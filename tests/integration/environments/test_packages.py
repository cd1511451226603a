"""The hub as a package index, by a real server; and nodes that reach no other."""

import asyncio
import json
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from fallow.hub.core.opening import open_hub
from fallow.hub.core.settings import HubSettings
from fallow.hub.web.package_mirror import PackageSettings, package_settings
from fallow.hub.web.server import serve
from fallow.hub.web.settings import WebSettings
from fallow.model.environment import EnvironmentLock
from fallow.model.errors import BadRequest, EnvironmentFailed
from fallow.node.builders.uv import UvBuilder
from fallow.packages.index import PackageIndex
from fallow.packages.reaching import HubPackages

from .conftest import PYTHON

JOIN, USER = "flw_join-token-of-a-test", "flw_admin-token-of-a-test"


class Served:
    """A hub with a package index, in a thread."""

    def __init__(self, folder, index_url, limit_bytes=1 << 30):
        self.folder = folder / "hub"
        self.folder.mkdir()
        self.cache = self.folder / "packages"
        settings = HubSettings(folder=self.folder, admin_secret=USER, join_secret=JOIN)
        packages = PackageSettings(index=PackageIndex(index_url), folder=self.cache, limit_bytes=limit_bytes)
        ready = threading.Event()

        def run():
            async def main():
                self.loop, self.task = asyncio.get_running_loop(), asyncio.current_task()

                def on_ready(address):
                    self.url = address
                    ready.set()

                await serve(open_hub(settings), "127.0.0.1", 0, on_ready, settings=WebSettings(packages=packages))

            with pytest.raises(asyncio.CancelledError):
                asyncio.run(main())

        self.thread = threading.Thread(target=run)
        self.thread.start()
        assert ready.wait(60)

    def get(self, path, token=JOIN):
        request = urllib.request.Request(self.url + "/api/v1/packages" + path)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def close(self):
        self.loop.call_soon_threadsafe(self.task.cancel)
        self.thread.join()


@pytest.fixture
def hub(index, tmp_path):
    served = Served(tmp_path, index.url)
    yield served
    served.close()


def test_files_are_listed_and_kept(hub, index):
    package = index.add("apple", "1.5")
    status, body = hub.get("/simple/apple/")
    assert status == 200
    page = json.loads(body)
    (file,) = page["files"]
    assert (page["meta"], file["filename"]) == ({"api-version": "1.0"}, "apple-1.5-py3-none-any.whl")
    assert file["hashes"] == {"sha256": package.sha256[0]}
    wheel = (index.folder / file["filename"]).read_bytes()
    path = file["url"].removeprefix("../..")
    assert hub.get(path) == (200, wheel)
    assert hub.get(path, USER) == (200, wheel)
    assert index.fetched() == ["apple-1.5-py3-none-any.whl"]  # once; the second came from the hub's disk
    assert hub.get("/simple/Apple")[0] == 200
    assert [each for each in index.requests if "simple" in each] == ["/simple/apple/"]


def test_what_is_not_there_or_not_allowed(hub, index):
    package = index.add("apple", "1.5")
    assert hub.get("/simple/pear/")[0] == 404
    assert hub.get("/simple/apple/", token="")[0] == 401
    assert hub.get("/simple/apple/", token="flw_wrong")[0] == 401
    assert hub.get("/simple/%2e%2e/")[0] == 404
    assert hub.get(f"/files/{package.sha256[0]}/pear-1.0-py3-none-any.whl")[0] == 404
    assert hub.get(f"/files/{'0' * 64}/apple-1.5-py3-none-any.whl")[0] == 404
    assert hub.get("/files/..%2f..%2fetc/passwd")[0] == 404
    assert not list(hub.cache.glob("*/*"))


def test_damaged_files_are_not_kept(hub, index):
    package = index.add("apple", "1.5")
    hub.get("/simple/apple/")
    index.add("apple", "1.5", {"apple.py": "other = 'bytes'\n"})
    status, body = hub.get(f"/files/{package.sha256[0]}/apple-1.5-py3-none-any.whl")
    assert status == 503
    assert b"damaged" in body
    assert not [path for path in hub.cache.rglob("*") if path.is_file()]


def test_least_recently_used_files_go(index, tmp_path):
    packages = [index.add(name, "1.0") for name in ("apple", "pear", "plum")]
    size = (index.folder / "pear-1.0-py3-none-any.whl").stat().st_size
    served = Served(tmp_path, index.url, limit_bytes=2 * size + 20)
    try:
        for package in (packages[0], packages[1], packages[0], packages[2]):
            assert served.get(f"/files/{package.sha256[0]}/{package.name}-1.0-py3-none-any.whl")[0] == 200
        kept = {path.name for path in served.cache.glob("*/*")}
    finally:
        served.close()
    assert kept == {packages[0].sha256[0], packages[2].sha256[0]}


def test_an_index_that_can_not_be_reached_is_named_without_its_password(tmp_path, index):
    index.close()
    served = Served(tmp_path, index.url.replace("://", "://anna:secret-word@"))
    try:
        status, body = served.get("/simple/apple/")
    finally:
        served.close()
    assert status == 503
    assert b"127.0.0.1" in body
    assert b"secret-word" not in body


def test_what_the_owner_says(tmp_path):
    assert package_settings("off", 1, tmp_path) is None
    assert package_settings("https://mirror.example/simple", 1, tmp_path).index.url == "https://mirror.example/simple"
    with pytest.raises(BadRequest, match="--packages"):
        package_settings("mirror.example", 1, tmp_path)


@pytest.mark.slow
async def test_a_node_that_reaches_no_index_builds_through_the_hub(hub, index, tmp_path, monkeypatch):
    lock = EnvironmentLock(python=PYTHON, packages=(index.add("apple", "1.5"), index.add("pear", "2.0")))
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple")  # nobody listens there
    monkeypatch.delenv("UV_CACHE_DIR")
    folder = tmp_path / "environments" / "env"
    folder.mkdir(parents=True)
    seen = []

    def watch():
        while not over.wait(0.005):
            for child in psutil.Process().children(recursive=True):
                try:
                    seen.append(" ".join(child.cmdline()))
                except psutil.Error:
                    continue

    over = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        python = await UvBuilder(HubPackages(hub.url, JOIN)).build(lock, {}, folder)
    finally:
        over.set()
        watcher.join()
    done = subprocess.run([python, "-c", "import apple, pear; print(apple.VERSION)"], capture_output=True, text=True)
    assert done.stdout == "1.5\n"
    assert any("pip install" in line for line in seen)
    assert not any(JOIN in line for line in seen)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(hub.folder)]
    assert not [path for path in written if JOIN.encode() in path.read_bytes()]


@pytest.mark.slow
async def test_the_token_is_in_no_log(hub, index, tmp_path, monkeypatch):
    lock = EnvironmentLock(python=PYTHON, packages=(index.add("apple", "1.5"),))
    Path(index.folder / "apple-1.5-py3-none-any.whl").unlink()
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple")
    folder = tmp_path / "environments" / "env"
    folder.mkdir(parents=True)
    with pytest.raises(EnvironmentFailed, match="apple") as caught:
        await UvBuilder(HubPackages(hub.url, JOIN)).build(lock, {}, folder)
    assert JOIN not in str(caught.value)
    assert JOIN not in repr(HubPackages(hub.url, JOIN))
