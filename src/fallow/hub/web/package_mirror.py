"""Packages from the hub's index, kept on its disk by their SHA-256. Knows nothing of routes or tokens."""

import asyncio
import contextlib
import hashlib
import html.parser
import os
import re
import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import msgspec

from fallow.model.errors import BadRequest, HubFull, NotFound, Unavailable
from fallow.packages.index import PackageIndex, configured_index
from fallow.packages.uv import find_uv, index_urls

if TYPE_CHECKING:
    import httpx

LISTED_FOR_S = 600.0
"""How long a list of a package's files is good: what large indexes tell their caches."""
LISTS = 500
"""Lists kept in memory."""
LIST_BYTES = 64 << 20
METADATA_BYTES = 8 << 20
DOWNLOADS = 8
"""Files fetched at a time."""
TIMEOUT_S = 60.0
RESERVE_BYTES = 256 << 20
"""Room that is left on the disk whatever the limit is."""
CHUNK_BYTES = 1 << 20
ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.2"

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILENAME = re.compile(r"[A-Za-z0-9][\w.+!-]{0,240}", re.ASCII)


class PackageSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is mirrored, and where it is kept."""

    index: PackageIndex
    folder: Path
    limit_bytes: int = 10 << 30


def package_settings(named: str, limit_bytes: int, state: Path) -> PackageSettings | None:
    """Read what the hub's owner says: an address, "off", or nothing for this computer's own index; None: none is served.

    Raises BadRequest.
    """
    if named == "off":
        return None
    if named and urlsplit(named).scheme not in {"http", "https"}:
        raise BadRequest(f'--packages {named!r:.200} is not the address of a package index, or "off"')
    index = PackageIndex(named) if named else configured_index()
    if not index.url and find_uv() is None:
        return None  # there is nobody to ask which one it is
    return PackageSettings(index=index, folder=state / "packages", limit_bytes=limit_bytes)


class PackageFile(msgspec.Struct, frozen=True, omit_defaults=True, rename={"requires_python": "requires-python",
                  "core_metadata": "core-metadata"}):  # fmt: skip
    """One file of a package, as an index lists it (PEP 691)."""

    filename: str
    url: str
    hashes: dict[str, str]
    requires_python: str | None = None
    core_metadata: dict[str, str] | bool = False
    yanked: bool | str = False
    size: int | None = None


class _Page(msgspec.Struct):
    files: list[PackageFile]


class PackageMirror:
    """One per hub."""

    def __init__(self, settings: PackageSettings) -> None:
        self._settings = settings
        self._client: httpx.AsyncClient | None = None
        self._lists: OrderedDict[str, tuple[float, dict[str, PackageFile]]] = OrderedDict()
        self._fetching: dict[str, asyncio.Task[Path]] = {}
        self._turns = asyncio.Semaphore(DOWNLOADS)
        self._urls: tuple[str, ...] = ()

    async def files(self, name: str) -> list[PackageFile]:
        """Return a package's files, whose addresses are those of the index; raises NotFound, Unavailable."""
        if not _NAME.fullmatch(name):
            raise NotFound(f"there is no package {name[:80]!r}")
        return list((await self._list(re.sub(r"[-_.]+", "-", name).lower())).values())

    async def file(self, sha256: str, filename: str) -> Path:
        """Return where a file lies, fetched first if need be; raises NotFound, Unavailable, HubFull.

        A filename that ends with .metadata is that part of a wheel.
        """
        if not _SHA256.fullmatch(sha256) or not _FILENAME.fullmatch(filename):
            raise NotFound("packages' files are named by their SHA-256, and as in the list of the package")
        is_metadata = filename.endswith(".metadata")
        key = sha256 + ".metadata" if is_metadata else sha256
        place = self._settings.folder / sha256[:2] / key
        if place.exists():
            _used(place)
            return place
        task = self._fetching.get(key)
        if task is None:
            work = self._fetch(sha256, filename.removesuffix(".metadata"), place, is_metadata=is_metadata)
            task = self._fetching[key] = asyncio.get_running_loop().create_task(work)
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    def close(self) -> None:
        """End what is being fetched."""
        for task in self._fetching.values():
            task.cancel()
        self._client = None

    # --- the index ---

    async def _list(self, name: str) -> dict[str, PackageFile]:
        now = asyncio.get_running_loop().time()
        found = self._lists.get(name)
        if found is not None and now - found[0] < LISTED_FOR_S:
            return found[1]
        files = await self._ask(name)
        self._lists[name] = (now, files)
        self._lists.move_to_end(name)
        while len(self._lists) > LISTS:
            self._lists.popitem(last=False)
        return files

    async def _ask(self, name: str) -> dict[str, PackageFile]:
        if not self._urls:
            self._urls = self._settings.index.urls if self._settings.index.url else await index_urls()
        for base in self._urls:
            url = f"{base.rstrip('/')}/{name}/"
            async with self._get(url, ACCEPT) as answer:
                if answer.status_code in {403, 404, 410}:
                    continue
                _check(answer)
                data = await _read(answer, LIST_BYTES)
                is_json = "json" in answer.headers.get("content-type", "")
                listed = _of_json(data) if is_json else _of_html(data.decode("utf-8", "replace"))
                return {
                    each.filename: msgspec.structs.replace(each, url=urljoin(str(answer.url), each.url))
                    for each in listed
                    if _SHA256.fullmatch(each.hashes.get("sha256", "")) and _FILENAME.fullmatch(each.filename)
                }
        raise NotFound(f"the hub's package index has no package {name}")

    @contextlib.asynccontextmanager
    async def _get(self, url: str, accept: str = "*/*") -> AsyncIterator["httpx.Response"]:
        import httpx  # 7 MB: not where nobody asks for packages

        if self._client is None:
            self._client = httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=True)
        try:
            async with self._client.stream("GET", url, headers={"Accept": accept}) as answer:
                yield answer
        except httpx.HTTPError as error:  # its text may hold the address, and with that credentials
            host = urlsplit(url).hostname
            raise Unavailable(f"the hub can't reach its package index at {host}: {type(error).__name__}") from error

    # --- files ---

    async def _fetch(self, sha256: str, filename: str, place: Path, *, is_metadata: bool) -> Path:
        files = await self._list(_project_of(filename))
        listed = files.get(filename)
        if listed is None or listed.hashes["sha256"] != sha256:
            raise NotFound(f"the hub's package index has no {filename} with this SHA-256")
        url, wanted = listed.url, sha256
        if is_metadata:
            url += ".metadata"
            wanted = listed.core_metadata.get("sha256", "") if isinstance(listed.core_metadata, dict) else ""
        limit = METADATA_BYTES if is_metadata else self._settings.limit_bytes
        partial = self._settings.folder / f"partial-{secrets.token_hex(8)}"
        self._settings.folder.mkdir(parents=True, exist_ok=True)
        async with self._turns:
            try:
                async with self._get(url) as answer:
                    _check(answer)
                    await self._write(answer, partial, wanted, limit)
                place.parent.mkdir(exist_ok=True)
                partial.replace(place)
                _used(place)
            finally:
                partial.unlink(missing_ok=True)
        await asyncio.to_thread(_trim, self._settings.folder, self._settings.limit_bytes, place)
        return place

    async def _write(self, answer: "httpx.Response", partial: Path, wanted: str, limit: int) -> None:
        hasher, size = hashlib.sha256(), 0
        with partial.open("wb") as file:
            async for data in answer.aiter_bytes(CHUNK_BYTES):
                size += len(data)
                if size > limit or shutil.disk_usage(partial.parent).free < RESERVE_BYTES:
                    raise HubFull("the hub has no room for this package")
                hasher.update(data)
                await asyncio.to_thread(file.write, data)
        if wanted and hasher.hexdigest() != wanted:
            raise Unavailable("the package came damaged from the hub's package index")

    def _ended(self, key: str, task: asyncio.Task[Path]) -> None:
        self._fetching.pop(key, None)
        if not task.cancelled():
            task.exception()  # retrieved, also if nobody waits any more


def _check(answer: "httpx.Response") -> None:
    if answer.status_code == 404:
        raise NotFound("the hub's package index does not have this file")
    if answer.status_code != 200:
        raise Unavailable(f"the hub's package index answers with status {answer.status_code}")


async def _read(answer: "httpx.Response", limit: int) -> bytes:
    data = b""
    async for chunk in answer.aiter_bytes(CHUNK_BYTES):
        data += chunk
        if len(data) > limit:
            raise Unavailable(f"the hub's package index answers with over {limit} bytes")
    return data


def _of_json(data: bytes) -> list[PackageFile]:
    try:
        return msgspec.json.decode(data, type=_Page).files
    except msgspec.MsgspecError as error:
        raise Unavailable(f"the hub's package index lists its files in a way that is not PEP 691: {error}") from error


def _of_html(text: str) -> list[PackageFile]:
    parser = _Links()
    parser.feed(text)
    return parser.files


class _Links(html.parser.HTMLParser):
    """The links of a page as PEP 503 has it."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[PackageFile] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        url, fragment = urldefrag(given.get("href") or "")
        algorithm, _, digest = fragment.partition("=")
        if tag != "a" or not url:
            return
        about = given.get("data-core-metadata", given.get("data-dist-info-metadata"))
        kind, _, value = (about or "").partition("=")
        self.files.append(
            PackageFile(
                filename=unquote(urlsplit(url).path.rpartition("/")[2]),
                url=url,
                hashes={algorithm: digest} if digest else {},
                requires_python=given.get("data-requires-python"),
                core_metadata={kind: value} if value else about == "true",
                yanked=(given["data-yanked"] or True) if "data-yanked" in given else False,
            )
        )


def _project_of(filename: str) -> str:
    """Return the package that a file is of: wheels have no dash in its name, archives of sources may have."""
    name = filename.partition("-")[0] if filename.endswith(".whl") else filename.rpartition("-")[0]
    if not name:
        raise NotFound(f"{filename[:80]!r} is not the file of a package")
    return re.sub(r"[-_.]+", "-", name).lower()


def _used(path: Path) -> None:
    """Note that a file is the latest used one: by our clock, as the file system's own times are some ms coarse."""
    with contextlib.suppress(OSError):
        os.utime(path, ns=(time.time_ns(), time.time_ns()))


def _trim(folder: Path, limit_bytes: int, kept: Path) -> None:
    """Remove least recently used files over the limit. Who reads one goes on reading it."""
    found = [(path.stat(), path) for path in folder.glob("??/*")]
    held = sum(facts.st_size for facts, _ in found)
    for facts, path in sorted(found, key=lambda each: each[0].st_mtime_ns):
        if held <= limit_bytes:
            return
        if path != kept:
            path.unlink(missing_ok=True)
            held -= facts.st_size
