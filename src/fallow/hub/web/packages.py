"""/api/v1/packages: the hub's package index as a simple index (PEP 503, PEP 691), for nodes that reach no other.

Its clients are uv and pip, which send what they are given in an address: so a token may come as the password of HTTP's basic
authentication here, with any user name.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import msgspec
from litestar import Router, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import PathParameter
from litestar.response import Stream
from litestar.status_codes import HTTP_200_OK

from fallow.hub.web.auth import FOR_NODES
from fallow.hub.web.given import GivenPackages
from fallow.hub.web.package_mirror import PackageFile
from fallow.model.errors import NotFound

CHUNK_BYTES = 256 * 1024
OCTETS = "application/octet-stream"
SIMPLE = "application/vnd.pypi.simple.v1+json"

NameParameter = Annotated[str, PathParameter(description="Name of the package.")]
Sha256Parameter = Annotated[str, PathParameter(description="SHA-256 of the file, 64 hex digits.")]
FilenameParameter = Annotated[str, PathParameter(description="Name of the file, as listed.")]


class PackagePage(msgspec.Struct, frozen=True):
    """A package as a simple index lists it."""

    name: str
    files: list[PackageFile]
    """Each with its address, relative to this one, and its SHA-256."""
    meta: dict[str, str]


@get("/simple/{name:str}", summary="List a package's files", opt=FOR_NODES, media_type=SIMPLE)
async def list_package(name: NameParameter, packages: GivenPackages) -> PackagePage:
    """List the files of a package that the hub's package index has, as JSON (PEP 691)."""
    if packages is None:
        raise NotFound("this hub serves no packages; `fallow hub --packages URL` does")
    files = [
        msgspec.structs.replace(each, url=f"../../files/{each.hashes['sha256']}/{each.filename}")
        for each in await packages.files(name)
    ]
    return PackagePage(name, files, {"api-version": "1.0"})


@get(
    "/files/{sha256:str}/{filename:str}",
    summary="Download a package's file",
    opt=FOR_NODES,
    responses={
        HTTP_200_OK: ResponseSpec(
            generate_examples=False, data_container=bytes, media_type=OCTETS, description="The file's bytes."
        )
    },
)
async def read_package_file(sha256: Sha256Parameter, filename: FilenameParameter, packages: GivenPackages) -> Stream:
    """Read a file that the list of its package names; the hub fetches it first if it does not have it yet."""
    if packages is None:
        raise NotFound("this hub serves no packages; `fallow hub --packages URL` does")
    path = await packages.file(sha256, filename)
    size = path.stat().st_size
    return Stream(_chunks(path), media_type=OCTETS, headers={"Content-Length": str(size)})


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield data


def packages_router() -> Router:
    return Router("/packages", route_handlers=[list_package, read_package_file], tags=["packages"])
