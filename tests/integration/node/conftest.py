"""A real agent with real slots; the test is its hub, frame by frame."""

import asyncio
import contextlib
import importlib.util
import inspect
import itertools
import os
import sys
import time
from pathlib import Path

import psutil
import pytest
from blake3 import blake3

from fallow.link.frames import (
    PROTOCOL_VERSION,
    Acknowledged,
    BlobAt,
    BlobChunk,
    BlobKept,
    BlobMissing,
    BlobOffer,
    BlobWanted,
    Done,
    FilesShared,
    Grant,
    NodeHello,
    PageSent,
    PageWanted,
    Printed,
    SharesFiles,
    SpecSent,
    SpecWanted,
    TaskBroke,
    Welcome,
)  # fmt: skip
from fallow.link.memory import memory_pair
from fallow.model.errors import Unavailable
from fallow.model.job import Counting, JobSpec, Pages
from fallow.model.lease import Lease
from fallow.model.page import InputPage
from fallow.model.ranges import RangeSet
from fallow.node import platform
from fallow.node.agent import Agent
from fallow.node.settings import NodeSettings
from fallow.slot import pages, pickling, refs

DEADLINE_S = 60.0


def _load(name):
    spec = importlib.util.spec_from_file_location(
        f"{name}_for_tests", Path(__file__).parent / "containers" / f"{name}.py"
    )
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


Daemon = _load("daemon").Daemon
write_image = _load("image").write_image


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run async tests of this folder on a loop of their own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


class Hub:
    """Answers what a hub must answer, and records what it gets."""

    def __init__(self, folder, channel=platform.CHANNEL):
        self.folder = folder
        self.channel = channel
        self.link = None
        self.agent = None
        self.got = []
        self.blobs = {}
        self.specs = {}
        self.pages = {}
        self.acknowledges = True
        self.is_up = True
        self.shares = False
        self.welcomes = True
        self.serves_blobs = True
        self.keeps_blobs = True
        self.welcome = Welcome(PROTOCOL_VERSION, 1, "test")
        self.connections = 0
        self._jobs = itertools.count(1)
        self._leases = itertools.count(1)

    # --- the link's other end ---

    async def connect(self):
        if not self.is_up:
            raise Unavailable("the test's hub is down")
        self.connections += 1
        ours, theirs = memory_pair(asyncio.get_running_loop(), peer="test")
        self.link = ours
        ours.start(self.on_frame, lambda reason: None)
        return theirs

    def on_frame(self, frame):
        self.got.append(frame)
        send = self.link.send
        match frame:
            case NodeHello():
                if self.welcomes:
                    send(self.welcome)
            case Done() if self.acknowledges:
                send(Acknowledged(frame.number))
            case BlobWanted() if self.serves_blobs:
                data = self.blobs.get(frame.digest)
                if data is None:
                    send(BlobMissing(frame.digest, "never heard of it"))
                elif self.shares:
                    path = self.folder / frame.digest
                    path.write_bytes(data)
                    send(BlobAt(frame.digest, str(path)))
                else:
                    for at in range(frame.offset, max(len(data), 1), 1 << 18):
                        send(BlobChunk(frame.digest, at, len(data), data[at : at + (1 << 18)]), bulk=True)
            case BlobOffer() if self.keeps_blobs:
                if frame.digest in self.blobs:
                    send(BlobKept(frame.digest))
                elif frame.path is not None:
                    with open(frame.path, "rb") as file:
                        self.blobs[frame.digest] = file.read()
                    send(BlobKept(frame.digest))
                else:
                    self.blobs[frame.digest] = b""
                    send(BlobWanted(frame.digest))
            case BlobChunk():
                self.blobs[frame.digest] += frame.data
                if len(self.blobs[frame.digest]) == frame.size:
                    send(BlobKept(frame.digest))
            case SharesFiles():
                incoming = self.folder / "incoming"
                incoming.mkdir(exist_ok=True)
                send(FilesShared(str(incoming)))
            case SpecWanted():
                send(SpecSent(self.specs[frame.job]))
            case PageWanted():
                for page in self.pages[frame.job]:
                    if page.start < frame.stop and page.stop > frame.start:
                        send(PageSent(frame.job, (page,)))

    def send(self, *frames):
        for frame in frames:
            self.link.send(frame)

    def cut(self):
        """The network breaks."""
        self.link.close("cut")

    def all(self, cls):
        return [frame for frame in self.got if isinstance(frame, cls)]

    async def until(self, condition, what=lambda: ""):
        deadline = time.monotonic() + DEADLINE_S
        while not (found := condition()):
            assert time.monotonic() < deadline, f"waited {DEADLINE_S} s; last seen: {what() or self.got[-10:]}"
            await asyncio.sleep(0.001)
        return found

    async def until_ended(self, pid):
        def has_ended():
            try:
                return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                return True

        await self.until(has_ended, lambda: pid)

    # --- jobs ---

    def put(self, data):
        digest = blake3(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def put_object(self, value):
        return refs.Ref(self.put(b"".join(pages.encode_list([value]))))

    def job(self, stages, functions, items=None, *, page_items=1000, calls=None, start=0, step=1, **fields):
        """Make a job; `items` or `calls` (args, kwargs) as pages, or neither: it counts."""
        json_codec = fields.get("codec") == "json"
        with refs.collecting() as function_refs:
            blob = functions.encode() if json_codec else pickling.dumps(functions)
        spec = JobSpec(
            id=f"{next(self._jobs):032x}",
            stages=tuple(stages),
            function=self.put(blob),
            function_name="f",
            inputs=Counting(start, step) if items is None and calls is None else Pages(),
            refs=tuple(function_refs),
            **fields,
        )
        self.specs[spec.id] = spec
        self.pages[spec.id] = []
        source = calls if calls is not None else items
        if source is not None:
            source = list(source)
            for at in range(0, len(source), page_items):
                part = source[at : at + page_items]
                with refs.collecting() as page_refs:
                    if calls is not None:
                        data = pages.encode_calls([pickling.dumps(call) for call in part])
                    elif json_codec:
                        data = pages.encode_json(part)
                    else:
                        data = b"".join(pages.encode_list(part))
                blob = None
                if len(data) > 900_000:
                    blob, data = self.put(data), None
                self.pages[spec.id].append(InputPage(spec.id, at, at + len(part), data, blob, tuple(page_refs)))
        return spec

    def grant(self, spec, start, stop, *, with_spec=True, with_pages=True):
        """Lease [start, stop); returns the lease's id."""
        lease = Lease(next(self._leases), spec.id, start, stop)
        sent = [page for page in self.pages[spec.id] if page.start < stop and page.stop > start] if with_pages else []
        self.send(Grant(lease, spec if with_spec else None, tuple(sent)))
        return lease.id

    def result_pages(self, spec):
        return [page for done in self.all(Done) if done.job == spec.id for page in done.pages]

    def settled(self, spec):
        settled = RangeSet()
        for page in self.result_pages(spec):
            settled.add(page.start, page.stop)
        for frame in self.all(TaskBroke):
            if frame.job == spec.id:
                settled.add(frame.failure.index, frame.failure.index + 1)
        return settled

    def values(self, spec):
        """Return {index: value} of what has come."""
        out = {}
        for page in self.result_pages(spec):
            kept = (page.start, page.stop) if page.kept is None else page.kept
            indices = [i for a, b in zip(kept[::2], kept[1::2], strict=True) for i in range(a, b)]
            if page.partial:
                indices = indices[:1]
            data = page.data if page.blob is None else self.blobs[page.blob]
            items = [] if data is None else list(pages.decode(data))
            out.update(zip(indices, items, strict=True))
        return out

    def failures(self, spec):
        """Return {index: failure}."""
        out = {f.index: f for page in self.result_pages(spec) for f in page.failures}
        out.update({frame.failure.index: frame.failure for frame in self.all(TaskBroke) if frame.job == spec.id})
        return out

    def printed(self, spec):
        """Return {index: text}."""
        out = {}
        for frame in self.all(Printed):
            if frame.job == spec.id:
                for entry in frame.entries:
                    out[entry.index] = out.get(entry.index, "") + entry.text
        return out

    async def run(self, spec, size):
        """Lease the whole job and wait until every task is settled."""
        self.grant(spec, 0, size)
        await self.finish(spec, size)

    async def finish(self, spec, size):
        await self.until(lambda: len(self.settled(spec)) >= size, lambda: (self.settled(spec), self.failures(spec)))

    # --- nodes ---

    def settings(self, **fields):
        defaults = {
            "folder": self.folder / "node",
            "name": "tester",
            "slots": 1,
            "cores": 1,
            "memory_bytes": 1 << 33,
            "benchmark": False,
            "channel": self.channel,
        }
        return NodeSettings(**(defaults | fields))

    @contextlib.asynccontextmanager
    async def node(self, **fields):
        """Run an agent for the block, connected."""
        agent = self.agent = Agent(self.settings(**fields), self.connect)
        running = asyncio.create_task(agent.run())
        try:
            await self.until(lambda: running.done() or self.all(NodeHello))
            if running.done():
                running.result()
            yield agent
        finally:
            await agent.stop()
            await running

    def slots(self):
        return list(self.agent._dispatcher.pool)

    async def slots_ready(self):
        await self.until(lambda: self.slots() and all(slot.process.is_ready for slot in self.slots()))


CHANNELS = ["threaded"] if platform.CHANNEL == "threaded" else ["watched", "threaded"]


def pytest_generate_tests(metafunc):
    """Run the tests of modules that say so over each way to connect slots that this system has."""
    if "hub" in metafunc.fixturenames and getattr(metafunc.module, "OVER_ALL_CHANNELS", False):
        metafunc.parametrize("hub", CHANNELS, indirect=True)


def forbidden(*_):
    raise NotImplementedError("the Proactor loop of Windows has no such thing")


@pytest.fixture
def hub(request, tmp_path, monkeypatch):
    channel = getattr(request, "param", platform.CHANNEL)
    if channel == "threaded":
        for name in ("add_reader", "remove_reader", "add_writer", "remove_writer"):
            monkeypatch.setattr(asyncio.SelectorEventLoop, name, forbidden)
    yield Hub(tmp_path, channel)
    children = psutil.Process().children(recursive=True)
    _, left = psutil.wait_procs(children, timeout=DEADLINE_S)  # what was killed ends soon
    assert not left, f"left running: {left}"


@pytest.fixture(scope="session")
def image_tar(tmp_path_factory):
    """The root filesystem of an image that has this interpreter."""
    path = tmp_path_factory.mktemp("image") / "image.tar"
    write_image(path)
    return path


@pytest.fixture(scope="session")
def daemon(image_tar):
    """A Docker daemon with that image."""
    from docker import APIClient

    daemon = Daemon(os.getpid() % 250)
    daemon.start()
    try:
        client = APIClient(daemon.url)
        client.import_image(str(image_tar), repository="fallow-test", tag="python")
        client.close()
        yield daemon
    finally:
        daemon.stop()


@pytest.fixture
def docker(daemon, monkeypatch):
    """The daemon, as the one that agents find; in the end it must have no containers left."""
    from docker import APIClient

    monkeypatch.setenv("DOCKER_HOST", daemon.url)
    client = APIClient(daemon.url)
    yield client
    deadline = time.monotonic() + DEADLINE_S
    while left := client.containers(all=True):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
    client.close()
