import msgspec
import pytest

from fallow.model.environment import EnvironmentLock, LockedPackage, LockedWheel, decode_lock, encode_lock
from fallow.model.errors import BadRequest

SHA256, DIGEST = "a" * 64, "b" * 64
PACKAGE = LockedPackage("numpy", "2.3.5", (SHA256,), "sys_platform == 'win32' and python_full_version < '3.12'")
WHEEL = LockedWheel("mine-1.0+local-py3-none-any.whl", DIGEST, SHA256)
LOCK = EnvironmentLock(python="3.11", packages=(PACKAGE,), wheels=(WHEEL,))


def test_a_lock_travels():
    assert decode_lock(encode_lock(LOCK)) == LOCK
    assert encode_lock(LOCK) == encode_lock(decode_lock(encode_lock(LOCK)))


@pytest.mark.parametrize(
    "changes",
    [
        {"python": "3"},
        {"python": "2.7"},
        {"python": "3.11 --index-url http://evil"},
        {"python": "/bin/sh"},
        {"builder": "../uv"},
        {"packages": (LockedPackage("-r /etc/passwd", "1", (SHA256,)),)},
        {"packages": (LockedPackage("numpy @ http://evil", "1", (SHA256,)),)},
        {"packages": (LockedPackage("numpy", "1 --hash=x", (SHA256,)),)},
        {"packages": (LockedPackage("numpy", "1\n-e .", (SHA256,)),)},
        {"packages": (LockedPackage("numpy", "1", (SHA256,), "os_name == 'x'\n--index-url http://evil"),)},
        {"packages": (LockedPackage("numpy", "1", (SHA256,), "a --no-binary b"),)},
        {"packages": (LockedPackage("numpy", "1", ()),)},
        {"packages": (LockedPackage("numpy", "1", ("a" * 63,)),)},
        {"packages": (PACKAGE,) * 2001},
        {"wheels": (LockedWheel("../evil.whl", DIGEST, SHA256),)},
        {"wheels": (LockedWheel("a/b.whl", DIGEST, SHA256),)},
        {"wheels": (LockedWheel("a.whl", "../" + DIGEST, SHA256),)},
        {"text": "x" * (1 << 21)},
    ],
)
def test_words_that_could_be_something_else_are_refused(changes):
    """Nodes make command lines and files of them."""
    with pytest.raises(BadRequest):
        decode_lock(encode_lock(msgspec.structs.replace(LOCK, **changes)))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"python": 3}', b"\xff", b"x" * (17 << 20)])
def test_what_is_no_lock(data):
    with pytest.raises(BadRequest, match="lock"):
        decode_lock(data)
