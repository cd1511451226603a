"""Docker, and Podman, whose socket speaks the same: through the library `docker`, which is imported when an engine is first used.

The socket is $DOCKER_HOST, or the first that exists of where the two put theirs. Where the engine runs without root, users
inside of containers are others outside: there Podman maps the agent's user to itself, and Docker maps root to it.
"""

import contextlib
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from fallow.node.cache import digest_of
from fallow.node.engine import EngineFailed, Order

if TYPE_CHECKING:
    from docker import APIClient

TIMEOUT_S = 600.0
"""What the engine may take for one answer; unpacking a large image is one."""
ARCHIVES = "fallow-image"
"""Images from archives are kept under this name, with the archive's digest as their tag."""
LABEL = "fallow"
MAX_ARCHIVE_BYTES = 50 << 30
"""Size of an image, unpacked."""
MAX_INDEX_BYTES = 16 << 20
"""Size of the list of contents of an image, which is read whole."""
TMP_BYTES = 1 << 30
"""Size of /tmp; what is in it counts as memory."""
OUTPUT_BYTES = 4096
NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
"""Annotations by which an archive gives its images names."""


class DockerEngine:
    """See `Engine`."""

    def __init__(self, socket: str | None = None) -> None:
        """socket: path of the engine's; None: the usual ones."""
        self._socket = socket
        self._lock = threading.Lock()
        self._connected: APIClient | None = None
        self._is_rootless = self._is_podman = False

    def describe(self) -> str:
        client = self._client()
        with _told():
            version = client.version()
            info = client.info()
        return f"{'Podman' if self._is_podman else 'Docker'} {version['Version']}, images on {info['Driver']}"

    # --- images ---

    def find(self, name: str) -> str:
        client = self._client()
        known = self._find_here(name)
        if known is not None:
            return known
        words = ""
        with _told(f"the image {name} is neither here nor to be pulled"):
            for line in client.pull(name, stream=True, decode=True):
                words = line.get("error", words)
        known = self._find_here(name)
        if known is None:
            raise EngineFailed(
                f"the image {name} is neither here nor to be pulled: {words or 'the engine does not say why'}"
            )
        return known

    def _find_here(self, name: str) -> str | None:
        from docker.errors import ImageNotFound

        with _told(f"the image {name}"):
            try:
                return str(self._client().inspect_image(name)["Id"])
            except ImageNotFound:
                return None

    def load(self, archive: Path) -> str:
        client = self._client()
        name = f"{ARCHIVES}:{digest_of(archive)}"
        known = self._find_here(name)
        if known is not None:
            return known
        if _is_saved(archive):
            with _without_names(archive) as stream, _told("the image archive"):
                lines = list(client.load_image(stream))
            loaded = [line["stream"] for line in lines if "Loaded image" in line.get("stream", "")]
            if not loaded:
                words = " ".join(line["error"] for line in lines if "error" in line)
                raise EngineFailed(f"the image archive could not be loaded: {words or lines}")
            with _told("the image archive"):
                client.tag(loaded[0].partition(": ")[2].strip(), ARCHIVES, name.partition(":")[2])
        else:
            with _told("the archive of a root filesystem"):
                lines = [json.loads(line) for line in client.import_image(str(archive)).splitlines()]
                image = next((line["status"] for line in lines if str(line.get("status")).startswith("sha256:")), "")
                if not image:
                    words = " ".join(line["error"] for line in lines if "error" in line)
                    raise EngineFailed(f"the archive of a root filesystem could not be taken: {words or lines}")
                client.tag(image, ARCHIVES, name.partition(":")[2])
        known = self._find_here(name)
        if known is None:
            raise EngineFailed("the image archive was taken, but there is no image of it")
        return known

    # --- containers ---

    def create(self, order: Order) -> str:
        from docker.types import Mount

        client = self._client()
        limits = order.limits
        user = (0, 0) if self._is_rootless and not self._is_podman else order.user
        tmp = f"rw,nosuid,nodev,mode=1777,size={min(TMP_BYTES, limits.disk_bytes or TMP_BYTES)}"
        if user is not None and not self._is_podman:  # the mode may become that of the image's folder
            tmp += f",uid={user[0]},gid={user[1]}"
        host = client.create_host_config(
            mounts=[
                Mount(str(each.path), str(each.path), type="bind", read_only=not each.is_writable)
                for each in order.mounts
            ],
            network_mode=None if order.network else "none",
            read_only=True,
            tmpfs={"/tmp": tmp},  # noqa: S108 - it is the container's own
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            userns_mode="keep-id" if self._is_rootless and self._is_podman else None,
            mem_limit=limits.memory_bytes,
            memswap_limit=limits.memory_bytes,
            nano_cpus=None if limits.cpus is None else int(limits.cpus * 1e9),
            pids_limit=limits.processes,
        )
        with _told("the container"):
            made = client.create_container(
                order.image,
                entrypoint=[order.command[0]],
                command=list(order.command[1:]),
                environment=dict(order.environment),
                working_dir=str(order.folder),
                user=None if user is None else f"{user[0]}:{user[1]}",
                labels={LABEL: order.label},
                healthcheck={"test": ["NONE"]},
                use_config_proxy=False,  # proxies are the owner's, and may have passwords
                host_config=host,
            )
        return str(made["Id"])

    def start(self, container: str) -> None:
        with _told("the container could not be started"):
            self._client().start(container)

    def wait(self, container: str) -> int:
        with _told("the container"):
            return int(self._client().wait(container, timeout=None)["StatusCode"])

    def output(self, container: str) -> str:
        with _told("the container's output"):
            text: bytes = self._client().logs(container, tail=100)
        return text[-OUTPUT_BYTES:].decode("utf-8", "replace")

    def kill(self, container: str) -> None:
        from docker.errors import APIError

        with _told("the container"), contextlib.suppress(APIError):  # it has ended, or is gone
            self._client().kill(container)

    def remove(self, container: str) -> None:
        from docker.errors import APIError, NotFound

        with _told("the container"):
            try:
                self._client().remove_container(container, force=True, v=True)
            except NotFound:
                pass
            except APIError as error:
                if error.status_code != 409:  # it is being removed
                    raise

    def sweep(self, label: str) -> int:
        with _told("the containers that are left over"):
            found = self._client().containers(all=True, quiet=True, filters={"label": f"{LABEL}={label}"})
        for each in found:
            self.remove(each["Id"])
        return len(found)

    def close(self) -> None:
        with self._lock:
            if self._connected is not None:
                self._connected.close()
                self._connected = None

    # --- the connection ---

    def _client(self) -> "APIClient":
        """Return the connection, which all threads share."""
        with self._lock:
            if self._connected is None:
                self._connected = self._connect()
            return self._connected

    def _connect(self) -> "APIClient":
        socket = self._socket or find_socket()
        if not Path(socket).exists():
            raise EngineFailed(f"no container engine: there is no socket {socket}")
        try:
            from docker import APIClient  # 0.3 s and 10 MB: not where there is no engine
        except ImportError as error:
            raise EngineFailed("the Python package docker is not installed") from error
        with _told(f"the container engine at {socket}"):
            client = APIClient(f"unix://{socket}", version="auto", timeout=int(TIMEOUT_S))
            version = client.version()
            options = client.info().get("SecurityOptions") or []
        self._is_podman = any("podman" in each["Name"].lower() for each in version.get("Components") or [])
        self._is_rootless = any("rootless" in option for option in options)
        return client


def find_socket() -> str:
    """Return the path of an engine's socket; raises EngineFailed if there is none."""
    given = os.environ.get("DOCKER_HOST", "")
    if given:
        if not given.startswith("unix://"):
            raise EngineFailed(
                f"DOCKER_HOST={given} is not a socket on this computer, so its containers can't see our files"
            )
        return given.removeprefix("unix://")
    own = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}" if hasattr(os, "getuid") else "")
    places = ["/run/docker.sock", f"{own}/docker.sock", f"{own}/podman/podman.sock", "/run/podman/podman.sock"]
    for place in places:
        if os.access(place, os.R_OK | os.W_OK):
            return place
    refused = [place for place in places if Path(place).exists()]
    if refused:
        raise EngineFailed(f"{refused[0]} may not be used by this user (Docker: who is in the group docker may)")
    raise EngineFailed(f"no container engine: there is no socket at {', '.join(places)}, and DOCKER_HOST is not set")


@contextlib.contextmanager
def _told(what: str = "the container engine") -> Iterator[None]:
    """Turn the library's errors into ours, with the engine's words."""
    from docker.errors import APIError, DockerException
    from requests import RequestException

    try:
        yield
    except APIError as error:
        raise EngineFailed(f"{what}: {error.explanation or error}") from error
    except (DockerException, RequestException) as error:
        raise EngineFailed(f"{what}: the engine does not answer: {error}") from error


# --- archives -----------------------------------------------------------------------------------


def _is_saved(archive: Path) -> bool:
    """Whether an archive is what `docker save` writes, not a plain root filesystem. Raises EngineFailed for what is neither."""
    size = 0
    names: set[str] = set()
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise EngineFailed(f"the image archive holds {member.name!r:.200}, which lies outside of it")
                size += member.size
                if size > MAX_ARCHIVE_BYTES:
                    raise EngineFailed(f"the image archive holds over {MAX_ARCHIVE_BYTES} bytes")
                names.update(path.parts[:1])
            if "manifest.json" not in names:
                if not names & {"usr", "bin"}:
                    raise EngineFailed("the image archive is neither from `docker save` nor a root filesystem")
                return False
            images = json.load(_read(tar, tar.getmember("manifest.json")))
    except (tarfile.TarError, OSError, EOFError, ValueError, KeyError) as error:
        if isinstance(error, EngineFailed):
            raise
        raise EngineFailed(f"the image archive is not a tar file that can be read: {error}") from error
    if not isinstance(images, list) or len(images) != 1:
        raise EngineFailed("the image archive has to hold one image")
    return True


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    if file is None or member.size > MAX_INDEX_BYTES:
        raise EngineFailed(f"{member.name} in the image archive is not a file of up to {MAX_INDEX_BYTES} bytes")
    return file


@contextlib.contextmanager
def _without_names(archive: Path) -> Iterator[IO[bytes]]:
    """Stream an archive without the names that it gives its image: these would take the place of images of the owner's."""
    read, write = os.pipe()
    problem: list[BaseException] = []

    def copy() -> None:
        try:
            with (
                os.fdopen(write, "wb") as out,
                tarfile.open(archive) as tar,
                tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as copied,
            ):
                for member in tar:
                    if member.name in {"manifest.json", "index.json"}:
                        data = json.dumps(_nameless(json.load(_read(tar, member)))).encode()
                        member.size = len(data)
                        copied.addfile(member, BytesIO(data))
                    elif member.name != "repositories":
                        copied.addfile(member, tar.extractfile(member) if member.isreg() else None)
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=copy, name="fallow-image")
    thread.start()
    try:
        with os.fdopen(read, "rb") as stream:
            yield stream
    finally:
        thread.join()
    if problem:
        raise EngineFailed(f"the image archive could not be read: {problem[0]}") from problem[0]


def _nameless(contents: Any) -> Any:
    """Remove the names of images from a list of contents, of Docker's or of OCI's format."""
    if isinstance(contents, list):
        return [{**image, "RepoTags": None} for image in contents]
    for manifest in contents["manifests"]:
        for name in NAMES:
            manifest.get("annotations", {}).pop(name, None)
    return contents
