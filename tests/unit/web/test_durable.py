"""REST and the journal: what is answered is durable, and a state that can't be reached is not taken for an empty one."""

import asyncio
import threading

import pytest

JOB = {"function": "math:sqrt", "items": [1, 4, 9], "name": "kept"}


class Gate:
    """Holds a function of the state back in its thread until it is opened."""

    def __init__(self, state, name):
        self._held, self._open = threading.Event(), threading.Event()
        real = getattr(state, name)

        def gated(*args):
            self._held.set()
            assert self._open.wait(60)
            return real(*args)

        setattr(state, name, gated)

    async def reached(self):
        await asyncio.to_thread(self._held.wait, 20)
        assert self._held.is_set()

    def open(self):
        self._open.set()


@pytest.fixture
def durable(make_web):
    return make_web(database=None)


async def turns(count=50):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("change", ["create", "cancel", "delete", "token"])
def test_a_change_is_answered_only_once_it_is_in_the_database(durable, change):
    headers = {"Authorization": f"Bearer {durable.admin}"}
    if change in {"cancel", "delete"}:
        assert durable.post("/api/v1/jobs", json=JOB).status_code == 201
    request = {
        "create": ("POST", "/api/v1/jobs", {"json": JOB}),
        "cancel": ("POST", "/api/v1/jobs/kept/cancel", {}),
        "delete": ("DELETE", "/api/v1/jobs/kept", {}),
        "token": ("POST", "/api/v1/tokens", {"json": {"role": "user", "name": "ada"}}),
    }[change]

    async def main():
        gate = Gate(durable.hub.state, "commit")
        method, path, body = request
        answer = asyncio.create_task(durable.client.request(method, path, headers=headers, **body))
        await gate.reached()
        await turns()
        assert not answer.done()
        gate.open()
        return await answer

    assert durable.run(main()).is_success


def test_while_the_state_is_opened_again_nothing_looks_as_if_it_were_gone(durable):
    web = durable
    assert web.post("/api/v1/jobs", json=JOB).status_code == 201
    gate = Gate(web.hub.state, "recover")

    async def refuse():
        web.hub._commit_failed(OSError(5, "Input/output error"))
        await gate.reached()

    web.run(refuse())
    for method, path in [
        ("GET", "/api/v1/jobs/kept"), ("GET", "/api/v1/jobs/kept/results"), ("GET", "/api/v1/jobs"),
        ("POST", "/api/v1/jobs/kept/cancel"), ("DELETE", "/api/v1/jobs/kept"),
    ]:  # fmt: skip
        answer = web.call(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable"), path
    assert web.post("/api/v1/jobs", json={**JOB, "name": "other"}).status_code == 503
    assert web.call("GET", "/healthz", token="").status_code == 200
    gate.open()
    found = web.wait_for("/api/v1/jobs", lambda body: "jobs" in body)
    assert [(job["name"], job["size"], job["state"]) for job in found["jobs"]] == [("kept", 3, "waiting")]
