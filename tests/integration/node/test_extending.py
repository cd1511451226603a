"""The examples of docs/extending.md, installed as its entry points say."""

import re
import sys
from pathlib import Path

import pytest

from fallow.model.containment import Containment
from fallow.model.requirements import Requirements
from fallow.node.engine import EngineFailed, open_engine

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[3] / "docs" / "extending.md").read_text()
EXAMPLES = dict(re.findall(r'```py\n("""(?:\w+)\.py.*?)```\n\n```toml\n(.*?)```', PAGE, re.DOTALL))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install an example: its module, and what its package says of itself."""
    names = []

    def install(name, **changes):
        (code,) = [code for code in EXAMPLES if code.startswith(f'"""{name}.py')]
        (group, entry) = re.fullmatch(r'\[project\.entry-points\."(.*)"\]\n(.*)\n', EXAMPLES[code]).groups()
        for before, after in changes.values():
            assert before in code
            code = code.replace(before, after)
        site = tmp_path / "site"
        about = site / f"{name}-1.0.dist-info"
        about.mkdir(parents=True)
        (site / f"{name}.py").write_text(code)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[{group}]\n{entry.replace(chr(34), '')}\n")
        monkeypatch.syspath_prepend(site)
        names.append(name)

    yield install
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.service("bubblewrap")
async def test_a_sandbox_of_ones_own(hub, installed, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "table").write_text("of the lab")
    installed("fallow_lab", data=("/srv/lab-data", str(data)))

    def look(folder):
        import os

        with open(f"{folder}/table") as file:
            text = file.read()
        return text, os.access(folder, os.W_OK), os.path.exists(f"{folder}/../node/node-id")

    async with hub.node(sandbox="bubblewrap"):
        job = hub.job(["call"], [look], calls=[((str(data),), {})], requirements=Requirements(sandbox="bubblewrap"))
        await hub.run(job, 1)
        assert hub.failures(job) == {}
        assert hub.values(job) == {0: ("of the lab", False, False)}


@pytest.mark.service("dockerd")
async def test_an_engine_of_ones_own(hub, installed, docker):
    installed("fallow_lab_images", registry=("registry.lab.example/", "fallow-test:"))
    engine = open_engine()
    assert engine.find("fallow-test:python").startswith("sha256:")
    with pytest.raises(EngineFailed, match="images of fallow-test: only, not debian:12"):
        engine.find("debian:12")
    engine.close()
    needs = Requirements(sandbox="container")
    async with hub.node():
        jobs = [
            hub.job(
                ["call"], [lambda: 6 * 7], calls=[((), {})], requirements=needs, containment=Containment(image=image)
            )
            for image in ("fallow-test:python", "debian:12")
        ]
        for job in jobs:
            await hub.run(job, 1)
        assert hub.values(jobs[0]) == {0: 42}
        assert "this node runs images of fallow-test: only, not debian:12" in hub.failures(jobs[1])[0].message
