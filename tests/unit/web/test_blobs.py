import blake3
import pytest


def digest_of(data):
    return blake3.blake3(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 300_000, 3_000_000])
def test_blobs_come_back_as_they_went(web, size):
    data = bytes(i % 251 for i in range(size))
    kept = web.post("/api/v1/blobs", content=data)
    assert (kept.status_code, kept.json()) == (201, {"digest": digest_of(data), "size": size})
    answer = web.get(f"/api/v1/blobs/{digest_of(data)}")
    assert answer.content == data
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(size)


def test_put_checks_the_digest(web):
    assert web.call("PUT", f"/api/v1/blobs/{digest_of(b'abc')}", content=b"abc").status_code == 200
    refused = web.call("PUT", f"/api/v1/blobs/{digest_of(b'abc')}", content=b"abd")
    assert web.is_refusal(refused, 400, "bad_request")
    assert digest_of(b"abd") in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("digest", "status"), [("0" * 64, 404), ("xyz", 400), ("A" * 64, 400), ("..%2f..%2fetc%2fpasswd", 400)]
)
def test_digests_that_name_nothing(web, digest, status):
    code = "not_found" if status == 404 else "bad_request"
    assert web.is_refusal(web.get(f"/api/v1/blobs/{digest}"), status, code)
