"""The OpenAPI 3.1 document, made from the routes themselves."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import msgspec
from litestar import Litestar, Router
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, Schema, SecurityScheme, Tag
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition

from fallow import __version__
from fallow.hub.web.admin import admin_router
from fallow.hub.web.auth import requires_token
from fallow.hub.web.blobs import blobs_router
from fallow.hub.web.errors import ErrorBody
from fallow.hub.web.events import watch_events
from fallow.hub.web.jobs import jobs_router
from fallow.hub.web.json_jobs import JobRequest
from fallow.hub.web.packages import packages_router

ABOUT = """\
Jobs, nodes, blobs, tokens and events of a Fallow hub.

Every call carries a token, `Authorization: Bearer TOKEN`; a browser that is signed in needs none. Every refusal has
the body `{"error": {"code": "...", "message": "..."}}`. Creating a job with an `id` of your own, and uploading a
blob, may be repeated without harm.
"""


class JsonValuePlugin(OpenAPISchemaPlugin):
    """Tells OpenAPI that `msgspec.Raw` is any JSON value."""

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        return value is msgspec.Raw

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:
        return Schema(description="Any JSON value.")


def api_router() -> Router:
    """Build the routes under /api/v1."""
    return Router(
        "/api/v1",
        route_handlers=[jobs_router(), blobs_router(), packages_router(), admin_router(), watch_events],
        guards=[requires_token],
        security=[{"token": []}],
    )


@cache
def openapi_document() -> bytes:
    """Return the document as JSON. It needs no hub."""
    app = Litestar(
        [api_router()],
        dependencies={name: _absent() for name in ("hub", "token", "web", "packages", "streams")},
        plugins=[JsonValuePlugin()],
        openapi_config=OpenAPIConfig(
            title="Fallow",
            version=__version__,
            use_handler_docstrings=True,
            description=ABOUT,
            components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
            tags=[Tag("jobs"), Tag("nodes"), Tag("blobs"), Tag("packages"), Tag("tokens"), Tag("events")],
        ),
    )
    document = app.openapi_schema.to_schema()
    _describe_job_request(document)
    _describe_errors(document)
    _describe_fields(document)
    return msgspec.json.encode(document)


def _absent() -> Provide:
    return Provide(lambda: None, sync_to_thread=False)


def _describe_errors(document: dict[str, Any]) -> None:
    """Put our one error shape in place of the framework's."""
    [schema], components = msgspec.json.schema_components([ErrorBody], ref_template="#/components/schemas/{name}")
    document["components"]["schemas"] |= components
    refusal = {
        "description": "Refused: what and why.",
        "content": {"application/json": {"schema": schema}},
    }
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"].pop("400", None)
            operation["responses"]["default"] = refusal


def _describe_fields(document: dict[str, Any]) -> None:
    """Say of every struct and field what its docstring says."""
    structs = {
        struct.__name__: struct for struct in _structs(msgspec.Struct) if struct.__module__.startswith("fallow.")
    }
    for name, schema in document["components"]["schemas"].items():
        struct = structs.get(schema.get("title", name))
        if struct is None:
            continue
        if struct.__doc__:
            schema["description"] = inspect.cleandoc(struct.__doc__)
        for field, text in _field_docs(struct).items():
            if field in schema.get("properties", {}):
                schema["properties"][field]["description"] = text


def _structs(base: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for struct in base.__subclasses__():
        yield struct
        yield from _structs(struct)


def _field_docs(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the strings that follow the fields in the class's source."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(struct))).body
    docs = {}
    for field, follows in pairwise(getattr(definition, "body", [])):
        match field, follows:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = " ".join(text.split())
    return docs


def _describe_job_request(document: dict[str, Any]) -> None:
    """Add the body that `create_job` reads by itself, to keep the items' text."""
    [schema], components = msgspec.json.schema_components([JobRequest], ref_template="#/components/schemas/{name}")
    document["components"]["schemas"] |= components
    document["paths"]["/api/v1/jobs"]["post"]["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {
                "schema": schema,
                "example": {"function": "math:sqrt", "items": [1, 4, 9], "name": "roots"},
            }
        },
    }
