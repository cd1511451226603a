"""The OpenAPI 3.1 document, made from the routes themselves."""

from functools import cache
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
from fallow.hub.web.events import watch_events
from fallow.hub.web.jobs import jobs_router

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
        route_handlers=[jobs_router(), blobs_router(), admin_router(), watch_events],
        guards=[requires_token],
        security=[{"token": []}],
    )


@cache
def openapi_document() -> bytes:
    """Return the document as JSON. It needs no hub."""

    def absent() -> None:
        return None

    names = ("hub", "token", "web", "streams")
    app = Litestar(
        [api_router()],
        dependencies={name: Provide(absent, sync_to_thread=False) for name in names},
        plugins=[JsonValuePlugin()],
        openapi_config=OpenAPIConfig(
            title="Fallow",
            version=__version__,
            description=ABOUT,
            components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
            tags=[Tag("jobs"), Tag("nodes"), Tag("blobs"), Tag("tokens"), Tag("events")],
        ),
    )
    return msgspec.json.encode(app.openapi_schema.to_schema())
