import pytest

from fallow.hub.web.auth import bearer_secret


@pytest.mark.parametrize(
    ("header", "secret"),
    [
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic abc", None),
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
    ],
)
def test_bearer_headers(header, secret):
    assert bearer_secret(header) == secret


def test_a_signed_in_browser_may_read(web):
    assert web.get("/api/v1/nodes", token="", headers=web.sign_in()).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 201),
        ({"Origin": "http://hub.test"}, 201),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://hub.test"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "http://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
    ],
)
def test_a_cookie_changes_things_from_our_own_pages_only(web, headers, status):
    answer = web.post(
        "/api/v1/tokens", token="", json={"role": "user", "name": "x"}, headers={**web.sign_in(), **headers}
    )
    assert answer.status_code == status


def test_a_wrong_bearer_token_is_not_made_good_by_a_cookie(web):
    assert web.get("/api/v1/nodes", token="flw_wrong", headers=web.sign_in()).status_code == 401


def test_revoking_a_token_signs_its_browsers_out(web):
    secret = web.token("user", "anna")
    browser = web.sign_in(secret)
    assert web.get("/api/v1/nodes", token="", headers=browser).status_code == 200
    [token] = [each for each in web.get("/api/v1/tokens").json()["tokens"] if each["name"] == "anna"]
    assert web.call("DELETE", f"/api/v1/tokens/{token['id']}").status_code == 204
    assert web.get("/api/v1/nodes", token="", headers=browser).status_code == 401
    assert web.get("/api/v1/nodes", token=secret).status_code == 401


def test_tokens_are_shown_once_and_kept_as_hashes(web):
    made = web.post("/api/v1/tokens", json={"role": "user", "name": "anna"})
    assert made.status_code == 201
    secret = made.json()["secret"]
    listed = web.get("/api/v1/tokens")
    assert secret not in listed.text
    assert "hash" not in listed.text
    assert web.get("/api/v1/whoami", token=secret).json() == made.json()["token"]


@pytest.mark.parametrize(
    "body",
    [
        {"role": "root", "name": "x"},
        {"role": "user"},
        {"role": "user", "name": ""},
        {"role": "user", "name": "x", "y": 1},
    ],
)
def test_malformed_token_requests(web, body):
    assert web.is_refusal(web.post("/api/v1/tokens", json=body), 400, "bad_request")


def test_revoking_an_unknown_token(web):
    assert web.is_refusal(web.call("DELETE", "/api/v1/tokens/nothere"), 404, "not_found")
