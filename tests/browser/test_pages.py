"""The pages in a real Chromium, against a real hub."""

import pytest
from programs_for_tests import ADMIN

pytestmark = [pytest.mark.service("chromium"), pytest.mark.slow]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DEADLINE_MS = 60_000


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS, timeout=2 * DEADLINE_MS)
        yield browser
        browser.close()


@pytest.fixture
def hub(programs):
    return programs.hub()


class Watched:
    """A page together with all that should never happen on it."""

    def __init__(self, context, hub):
        self.page = context.new_page()
        self.page.set_default_timeout(DEADLINE_MS)
        self.hub = hub
        self.wrong = []
        self.page.on("request", self._request)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("console", self._console)

    def _request(self, request):
        if not request.url.startswith((self.hub.url, "data:", "blob:")):
            self.wrong.append(f"foreign request: {request.url}")

    def _console(self, message):
        if message.type in {"error", "warning"} and "401 (Unauthorized)" not in message.text:
            self.wrong.append(f"console: {message.text}")

    def sign_in(self, token=ADMIN):
        self.page.goto(self.hub.url)
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        return self.page


@pytest.fixture
def open_page(chromium, hub):
    contexts, pages = [], []

    def open_page(**options):
        contexts.append(chromium.new_context(**options))
        pages.append(Watched(contexts[-1], hub))
        return pages[-1]

    yield open_page
    for context in contexts:
        context.close()
    assert [wrong for page in pages for wrong in page.wrong] == []


def test_signing_in_and_out(open_page):
    watched = open_page()
    page = watched.sign_in("flw_wrong")
    page.get_by_text("doesn't know this token").wait_for()
    page = watched.sign_in()
    page.get_by_role("heading", name="Jobs").wait_for()
    assert ADMIN not in page.content()
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Token").wait_for()
    page.goto(watched.hub.url)
    assert page.url.endswith("/sign-in")


def test_overview_follows_the_grid_without_reloading(open_page, programs, hub):
    page = open_page().sign_in()
    page.get_by_text("No computer has joined yet").wait_for()
    page.evaluate("window.notReloaded = true")
    programs.node(hub)
    page.locator("tr", has_text="node-1").wait_for()
    hub.job(items=[1, 4, -1], name="roots")
    row = page.locator("li.job", has_text="roots")
    row.get_by_text("3 of 3").wait_for()
    row.get_by_text("done", exact=True).wait_for()
    row.get_by_text("1 failed, task 2 with ValueError").wait_for()
    assert page.evaluate("window.notReloaded")


def test_overview_keeps_its_elements_while_it_changes(open_page, hub):
    page = open_page().sign_in()
    hub.job(items=[1], name="first")
    page.locator("li.job", has_text="first").wait_for()
    page.evaluate("window.kept = document.querySelector('li.job')")
    hub.job(items=[1], name="second")
    page.locator("li.job", has_text="second").wait_for()
    assert page.evaluate("window.kept.isConnected && window.kept.textContent.includes('first')")


def test_a_job_is_looked_into_and_cancelled(open_page, programs, hub):
    programs.node(hub)
    hub.job("builtins:exec", ["print('hello')", "1/0", "import time; time.sleep(600)"], name="sweep")
    page = open_page().sign_in()
    page.get_by_role("link", name="sweep").click()
    page.get_by_role("heading", name="sweep").wait_for()
    page.evaluate("window.notReloaded = true")
    page.get_by_text("2 of 3").wait_for()
    page.get_by_text("1 task is out at node-1").wait_for()
    page.locator("#log-lines").get_by_text("hello").wait_for()
    page.get_by_text("ZeroDivisionError: division by zero", exact=True).wait_for()
    page.locator("#trace-1 summary").click()
    before = page.locator("#progress .quiet").inner_text()
    page.wait_for_function("before => document.querySelector('#progress .quiet').innerText !== before", arg=before)
    assert page.get_by_text("Traceback (most recent call last)").is_visible()  # still open after a redraw
    assert page.evaluate("window.notReloaded")
    asked = []

    def answer(dialog):
        asked.append(dialog.message)
        dialog.accept() if len(asked) > 1 else dialog.dismiss()

    page.on("dialog", answer)
    page.get_by_role("button", name="Cancel job").click()
    assert hub.get("/jobs/sweep")["state"] == "running"
    page.get_by_role("button", name="Cancel job").click()
    page.locator("#job").get_by_text("cancelled", exact=True).wait_for()
    assert page.get_by_role("button", name="Cancel job").count() == 0
    assert asked == ["Stop this job's tasks, running ones too? The results that are there stay."] * 2
    assert hub.get("/jobs/sweep")["state"] == "cancelled"


LONG_TASK = """
import fallow, os, time
fallow.progress(0.25, "step 250 of 1,000")
while not os.path.exists(GATE + "-half"):
    time.sleep(0.01)
fallow.progress(0.5, "step 500 of 1,000")
while not os.path.exists(GATE):
    time.sleep(0.01)
"""


def test_a_job_shows_how_far_its_tasks_are(open_page, programs, hub, tmp_path):
    programs.node(hub)
    gate = tmp_path / "gate"
    job = hub.job("builtins:exec", [LONG_TASK.replace("GATE", repr(str(gate)))], name="long")["id"]
    page = open_page(viewport={"width": 360, "height": 800}).sign_in()
    page.goto(f"{hub.url}/jobs/{job}")
    page.evaluate("window.notReloaded = true")
    task = page.locator("#running-0")
    task.get_by_text("step 250 of 1,000").wait_for()
    task.get_by_text("25.0 %").wait_for()
    assert task.locator("svg.bar").get_attribute("aria-label") == "25.0 % done"
    (tmp_path / "gate-half").touch()
    task.get_by_text("step 500 of 1,000").wait_for()
    task.get_by_text("50.0 %").wait_for()
    task.get_by_text("on node-1, for").wait_for()
    assert page.evaluate("window.notReloaded")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for selector in ("#running .words", "#running .counts", "#running .quiet"):
        assert contrast(page, selector) > 4.5, selector
    code, said, _ = programs.run("job", "show", "long", "--hub", hub.url, FALLOW_TOKEN=ADMIN)
    assert code == 0
    assert ": 50%, step 500 of 1,000" in said
    gate.touch()
    page.locator("#job").get_by_text("done", exact=True).wait_for()
    assert page.locator("#running").count() == 0


def test_the_page_of_a_job_that_is_deleted_says_so(open_page, hub):
    watched = open_page()
    page = watched.sign_in()
    job = hub.job(name="short-lived")["id"]
    page.get_by_role("link", name="short-lived").click()
    page.get_by_role("heading", name="short-lived").wait_for()
    assert hub.http.delete(f"/api/v1/jobs/{job}").status_code == 204
    page.get_by_text("There is no such job").wait_for()
    page.reload()
    page.get_by_text("There is no such job").wait_for()
    page.get_by_role("link", name="All jobs").click()
    page.get_by_text("No jobs yet").wait_for()
    watched.wrong = [wrong for wrong in watched.wrong if "404 (Not Found)" not in wrong]  # the reload's own status


@pytest.mark.parametrize("was_connected", [True, False])
def test_overview_says_when_the_hub_is_away_and_goes_on_when_it_is_back(open_page, programs, hub, was_connected):
    watched = open_page()
    if not was_connected:  # the page has come, its stream has not yet: the hub is gone in between
        watched.page.route("**/live", lambda route: route.abort())
    page = watched.sign_in()
    page.get_by_role("heading", name="Jobs").wait_for()
    if was_connected:
        hub.job(name="seen")
        page.locator("li.job", has_text="seen").wait_for()
    port = hub.url.rsplit(":", 1)[-1]
    assert hub.stop() == 0
    page.get_by_text("The hub doesn't answer").wait_for()
    page.unroute("**/live")
    programs.hub("--port", port)
    page.get_by_label("Token").wait_for()  # the restart signed everybody out
    told = ("ERR_", "Failed to fetch", "htmx:sse:error")
    watched.wrong = [wrong for wrong in watched.wrong if not any(word in wrong for word in told)]


def test_api_page_renders_and_tries_calls_offline(open_page, hub):
    watched = open_page()
    watched.sign_in()
    page = watched.page
    page.get_by_role("link", name="API").click()
    page.locator("#operations-jobs-ApiV1JobsCreateJob").wait_for()
    document = hub.get("/openapi.json")
    assert page.locator(".opblock").count() == sum(len(item) for item in document["paths"].values())
    assert page.get_by_text("Failed to load").count() == 0
    operation = page.locator("#operations-jobs-ApiV1JobsCreateJob")
    operation.click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    operation.locator(".live-responses-table .response-col_status", has_text="201").wait_for()
    assert [job["name"] for job in hub.get("/jobs")["jobs"]] == ["roots"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_are_legible(open_page, programs, hub, scheme):
    programs.node(hub)
    name = "a-name-without-any-space-that-is-much-longer-than-what-fits-into-its-place-on-a-telephone"
    job = hub.job("builtins:exec", [f"print('{name}')", f"raise ValueError('{name * 3}')"], name=name)["id"]
    hub.wait_done(job)
    for width in (360, 768, 1280):
        page = open_page(color_scheme=scheme, viewport={"width": width, "height": 800}).sign_in()
        page.locator("li.job").wait_for()
        for path in ("/", "/api", f"/jobs/{job}"):
            page.goto(hub.url + path)
            page.locator("#figures, .opblock, #job").first.wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert contrast(page, ".top nav a") > 4.5, (width, path)
        page.locator("summary").click()
        page.locator("#log-lines").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for selector in (
            ".quiet",
            ".state",
            "h1",
            ".counts",
            "dt",
            "dd",
            ".failure",
            "summary",
            ".log .quiet",
            ".log pre",
        ):
            assert contrast(page, selector) > 4.5, (width, selector)
        page.goto(hub.url)
        for selector in (".quiet", ".label", ".state", "h1", ".counts"):
            assert contrast(page, selector) > 4.5, (width, selector)


def contrast(page, selector):
    """Return the contrast of an element's text with what is behind it (WCAG 2.2, 1.4.3)."""
    return page.locator(selector).first.evaluate(
        """element => {
            const parse = (text) => text.match(/[\\d.]+/g).map(Number);
            const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
                .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
                .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
            let behind = element, ground = [0, 0, 0, 0];
            while (behind && (ground[3] ?? 1) === 0) {
                ground = parse(getComputedStyle(behind).backgroundColor);
                behind = behind.parentElement;
            }
            const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground)].sort((x, y) => y - x);
            return (a + 0.05) / (b + 0.05);
        }"""
    )
