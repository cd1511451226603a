"""The contract of container engines, which every engine passes. One of your own joins by an entry in ENGINES."""

import io
import json
import tarfile
import threading
from pathlib import Path

import pytest

from fallow.model.containment import Limits
from fallow.node.engine import EngineFailed, Mount, Order
from fallow.node.engines.docker import DockerEngine, find_socket

pytestmark = [pytest.mark.slow, pytest.mark.service("dockerd")]

ENGINES = {"docker": DockerEngine}
IMAGE = "fallow-test:python"
NOBODY = (65534, 65534)


@pytest.fixture(params=sorted(ENGINES))
def engine(request, docker):
    engine = ENGINES[request.param]()
    yield engine
    engine.close()


@pytest.fixture
def run(engine):
    """Run a container to its end: `run(script, …)` returns its exit code and what it wrote."""
    made = []

    def run(script, *, image=IMAGE, folder=Path("/"), label="test", **fields):
        order = Order(
            image=engine.find(image),
            command=["python3", "-c", script],
            folder=folder,
            label=label,
            user=NOBODY,
            **fields,
        )
        made.append(engine.create(order))
        engine.start(made[-1])
        return engine.wait(made[-1]), engine.output(made[-1])

    yield run
    for each in made:
        engine.remove(each)


def archive_of(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


# --- images ---


def test_an_engine_says_what_it_is(engine):
    assert engine.describe().startswith(("Docker ", "Podman "))


def test_an_image_is_found_by_its_name_and_by_its_digest(engine):
    found = engine.find(IMAGE)
    assert found.startswith("sha256:")
    assert engine.find(found) == found


def test_an_image_that_is_not_there_is_told_in_the_engines_words(engine):
    with pytest.raises(
        EngineFailed, match=r"the image 127\.0\.0\.1:9/none:1 is neither here nor to be pulled: .*refused"
    ):
        engine.find("127.0.0.1:9/none:1")


def test_an_image_is_pulled_from_where_its_name_says(engine, registry, docker):
    docker.tag(IMAGE, f"{registry.address}/grid/pulled", "1")
    registry.serve("grid/pulled", "1", docker)
    docker.remove_image(f"{registry.address}/grid/pulled:1")
    found = engine.find(f"{registry.address}/grid/pulled:1")
    assert found == engine.find(f"{registry.address}/grid/pulled:1")
    docker.remove_image(f"{registry.address}/grid/pulled:1")
    with pytest.raises(EngineFailed, match="neither here nor to be pulled"):
        engine.find(f"{registry.address}/grid/other:1")


def test_a_root_filesystem_is_an_image(engine, image_tar, docker, run):
    image = engine.load(image_tar)
    assert engine.load(image_tar) == image
    assert run("print('inside')", image=image) == (0, "inside\n")
    docker.remove_image(image, force=True)


def test_a_saved_image_is_taken_without_the_names_that_it_brings_along(engine, docker, tmp_path, run):
    docker.tag(IMAGE, "owners/image", "1")
    saved = tmp_path / "saved.tar"
    with saved.open("wb") as file:
        file.writelines(docker.get_image("owners/image:1"))
    docker.remove_image("owners/image:1")
    image = engine.load(saved)
    assert image == engine.find(IMAGE)
    assert docker.images("owners/image") == []
    assert run("print('inside')", image=image) == (0, "inside\n")


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"usr/x": b"", "../outside": b"x"}, r"holds '\.\./outside', which lies outside of it"),
        ({"usr/x": b"", "/etc/cron.d/x": b"x"}, "which lies outside of it"),
        ({"notes.txt": b"x"}, "neither from `docker save` nor a root filesystem"),
        ({"manifest.json": b"[]"}, "has to hold one image"),
        ({"manifest.json": b"[{}, {}]"}, "has to hold one image"),
        ({"manifest.json": b"{"}, "not a tar file that can be read"),
        ({"manifest.json": json.dumps([{"Config": "../../x", "Layers": []}]).encode()}, "the image archive"),
    ],
)
def test_an_archive_that_is_no_image_is_refused_with_a_reason(engine, tmp_path, members, words):
    with pytest.raises(EngineFailed, match=words):
        engine.load(archive_of(tmp_path / "image.tar", members))
    assert not (tmp_path.parent / "outside").exists()


def test_what_is_no_archive_is_refused(engine, tmp_path):
    (tmp_path / "image.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(EngineFailed, match="not a tar file that can be read"):
        engine.load(tmp_path / "image.tar")


# --- containers ---


def test_a_container_has_its_variables_folder_user_and_exit_code(run, tmp_path):
    tmp_path.chmod(0o777)
    code, said = run(
        "import os; print(os.environ['GREETING'], os.getcwd(), os.getuid(), os.getgid()); raise SystemExit(7)",
        folder=tmp_path,
        environment={"GREETING": "hello"},
        mounts=[Mount(tmp_path)],
    )
    assert (code, said) == (7, f"hello {tmp_path} 65534 65534\n")


def test_it_writes_only_where_it_may(run, tmp_path):
    for name in ("mine", "shown"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    script = f"""
import os
for place in ("{tmp_path}/mine", "{tmp_path}/shown", "{tmp_path}", "/", "/usr", "/etc", "/var", "/tmp"):
    try:
        open(place + "/file", "w").close()
        print(place)
    except OSError:
        pass
"""
    mounts = [Mount(tmp_path / "mine", is_writable=True), Mount(tmp_path / "shown")]
    assert run(script, mounts=mounts, folder=tmp_path / "mine") == (0, f"{tmp_path}/mine\n/tmp\n")
    assert (tmp_path / "mine" / "file").exists()


def test_it_has_no_privileges(run):
    script = """
import os
status = dict(line.rstrip().split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
print(status["CapEff"], status["CapBnd"], status["NoNewPrivs"], status["Seccomp"])
"""
    assert run(script) == (0, "0000000000000000 0000000000000000 1 2\n")


def test_it_has_no_network_unless_asked_for(run, daemon):
    script = "import os; print(*sorted(os.listdir('/sys/class/net')))"
    assert run(script) == (0, "lo\n")
    assert run(script, network=True) == (0, "eth0 lo\n")


def test_its_limits_hold(run):
    code, _ = run("x = bytearray(400_000_000)", limits=Limits(memory_bytes=100_000_000))
    assert code == 137
    script = (
        "import threading\nfor _ in range(100): threading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    code, said = run(script, limits=Limits(processes=20))
    assert code == 1
    assert "can't start new thread" in said
    quota = "import glob; print(*(open(p).read().split()[0] for p in glob.glob('/sys/fs/cgroup/cpu.max') or ['/sys/fs/cgroup/cpu/cpu.cfs_quota_us']))"
    assert run(quota, limits=Limits(cpus=0.5)) == (0, "50000\n")


def test_a_program_that_is_not_in_the_image_is_told(engine):
    order = Order(image=engine.find(IMAGE), command=["no-such-program"], folder=Path("/"), user=NOBODY)
    container = engine.create(order)
    try:
        with pytest.raises(EngineFailed, match="no-such-program"):
            engine.start(container)
    finally:
        engine.remove(container)


def test_it_is_killed_with_all_that_it_started(engine):
    script = "import os, time; os.fork(); os.setsid(); time.sleep(600)"
    container = engine.create(Order(image=engine.find(IMAGE), command=["python3", "-c", script], folder=Path("/")))
    engine.start(container)
    ended = threading.Thread(target=engine.wait, args=(container,))
    ended.start()
    engine.kill(container)
    ended.join(60)
    assert not ended.is_alive()
    engine.kill(container)  # again, in vain
    engine.remove(container)
    engine.remove(container)
    engine.kill(container)


def test_containers_of_a_label_are_swept_away_and_no_others(engine, docker):
    def container(label):
        order = Order(
            image=engine.find(IMAGE),
            command=["python3", "-c", "import time; time.sleep(600)"],
            folder=Path("/"),
            label=label,
        )
        made = engine.create(order)
        engine.start(made)
        return made

    mine, other = [container("mine") for _ in range(2)], container("another")
    assert engine.sweep("mine") == 2
    assert [each["Id"] for each in docker.containers()] == [other]
    assert engine.sweep("mine") == 0
    assert len(mine) == engine.sweep("another") + 1


# --- where the engine is ---


def test_an_engine_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    with pytest.raises(EngineFailed, match=f"there is no socket {tmp_path}/none"):
        DockerEngine().describe()
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    with pytest.raises(EngineFailed, match="not a socket on this computer"):
        find_socket()
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "docker.sock").touch()
    found = find_socket()
    assert found in {f"{tmp_path}/docker.sock", "/run/docker.sock"}
