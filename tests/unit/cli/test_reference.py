"""The reference pages name everything that there is."""

from fallow.cli.reference import cli_reference, commands, rest_document, rest_reference
from fallow.hub.web.errors import CODES
from fallow.model.errors import BY_CODE


def test_every_command_and_option_is_in_the_reference():
    page = cli_reference()
    names = []
    for name, command in commands():
        names.append(name)
        assert f"## `{name}" in page
        assert command.help, name
        assert command.epilog.startswith("Examples\n\n"), name
        assert f"\n\n{name}" in command.epilog or f" {name} " in command.epilog, name
        section = page.split(f"## `{name}", 1)[1].split("\n## ", 1)[0]
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert all(f"{option}" in section for option in parameter.opts), (name, parameter.name)
                assert parameter.help, (name, parameter.name)
    assert {
        "fallow hub",
        "fallow node",
        "fallow demo",
        "fallow jobs",
        "fallow nodes",
        "fallow explain",
        "fallow map",
    } <= set(names)
    assert {f"fallow job {part}" for part in ("show", "cancel", "logs", "results", "delete")} <= set(names)
    assert {f"fallow token {part}" for part in ("create", "list", "revoke")} <= set(names)


def test_every_route_and_field_is_in_the_reference():
    page, document = rest_reference(), rest_document()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            section = page.split(f"## `{method.upper()} {path}`", 1)[1].split("\n## ", 1)[0]
            for parameter in operation.get("parameters", []):
                assert f"`{parameter['name']}`" in section
                assert parameter.get("description"), (path, parameter["name"])
    for schema in document["components"]["schemas"].values():
        for field in schema.get("properties", {}):
            assert f"| `{field}` |" in page


def test_every_error_that_rest_gives_is_in_the_reference():
    page = rest_reference()
    given = set(CODES.values()) | {code for code, error in BY_CODE.items() if error.status != 500} | {"internal"}
    for code in given - {"not_acceptable", "unsupported_media_type", "closed", "pickling_failed", "closed"}:
        assert f"`{code}`" in page, code
