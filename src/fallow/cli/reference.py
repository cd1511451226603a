"""The reference pages of the command line and of REST, written from the code as Markdown.

`python -m fallow.cli.reference cli` (or `rest`) prints one.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import typer

CLI_INTRO = """\
# Command line

This page is made from the code. `fallow COMMAND --help` says the same in a terminal.

Results go to stdout, remarks to stderr. A terminal gets tables; a pipe gets tab-separated values without a heading,
the id first; `--json` gives what the REST API said. The exit code is 0, 1 after an error (one line on stderr says
which), 2 for a command line that makes no sense, and 130 after Ctrl-C.

## Which hub, which token

| | first | then | then |
| --- | --- | --- | --- |
| address | `--hub URL` | `$FALLOW_HUB` | `hub = "URL"` in the config file |
| token | `--token-file FILE` | `$FALLOW_TOKEN` | `token = "…"` or `token_file = "FILE"` in the config file |

The config file is TOML, at `$FALLOW_CONFIG`, or else

| system | path |
| --- | --- |
| Linux | `$XDG_CONFIG_HOME/fallow/config.toml`, usually `~/.config/fallow/config.toml` |
| macOS | `~/Library/Application Support/fallow/config.toml` |
| Windows | `%APPDATA%\\fallow\\config.toml` |

A token is never an option of a command: other users of a computer can read those. A file that holds one should be
yours alone (`chmod 600`); commands warn if it is not. `fallow config` shows what is in effect.
"""

REST_INTRO = """\
# REST

This page is made from the code, as is the OpenAPI 3.1 document that every hub serves at `/api/v1/openapi.json`. The
page `/api` of a hub shows it in a browser, where calls can be tried.

Every call carries a token, `Authorization: Bearer TOKEN`. A user's token sees the jobs that it created; an admin's
sees all; a node's can only join as a node. The one answer without a token is `GET /healthz`: `ok`.

## Errors

Every refusal has a status of 400 or more and this body, on every route:

```json
{"error": {"code": "job_not_found", "message": "there is no job 'sweep-7'; `fallow jobs` lists yours"}}
```

`code` is for programs, `message` for people.

| status | code | what to do |
| --- | --- | --- |
"""

METRICS_INTRO = """\
## `GET /metrics`

**Read metrics.** The hub's figures as text for Prometheus, with the token of any user or admin. Beside those below there are
`process_cpu_seconds_total`, `process_resident_memory_bytes` and the other usual figures of a process, on Linux. Those that count
(`_total`, `_count`, `_sum`) begin anew when the hub starts.

| metric | meaning |
| --- | --- |
"""

ADVICE = {
    "bad_request": "fix the request: it can never work as it is",
    "denied": "send a valid token",
    "forbidden": "use a token whose role allows it",
    "not_found": "look at the path and the names in it",
    "job_not_found": "look at the job's id or name",
    "method_not_allowed": "look at the method",
    "job_exists": 'attach or replace with `"if_exists"`, or choose another name',
    "job_cancelled": "make a new job",
    "too_large": "send less at a time",
    "unavailable": "try again: the hub starts or drains",
    "hub_full": "free space on the hub's disk; accepted work is safe",
    "internal": "look into the hub's log for the number in the message",
}


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command's full name and its object, groups before what is in them."""
    from fallow.cli.commands import app

    def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for part, child in sorted(getattr(command, "commands", {}).items()):
            yield from below(f"{name} {part}", child)

    from fallow.demo.cli import app as demo_app

    root: Any = typer.main.get_command(app)
    root.commands["demo"] = typer.main.get_command(demo_app)  # which `fallow demo` hands its arguments to
    return below("fallow", root)


def cli_reference() -> str:
    """Return the page of all commands with all their options."""
    pages = [CLI_INTRO]
    pages += [_command_page(name, command) for name, command in commands()]
    return "\n".join(pages)


def _command_page(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    usage = " ".join([name, *(_word(each) for each in arguments)])
    usage += " COMMAND" if getattr(command, "commands", None) else ""
    lines = [f"## `{usage}`", "", inspect.cleandoc(command.help or ""), ""]
    rows = [(_word(each), each) for each in arguments] + [(_spelling(each), each) for each in options]
    if rows:
        lines += ["| | |", "| --- | --- |", *(f"| `{spelling}` | {_about(each)} |" for spelling, each in rows), ""]
    if command.epilog:
        lines += _epilog(command.epilog)
    return "\n".join(lines)


def _word(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _spelling(option: Any) -> str:
    names = ", ".join(sorted([*option.opts, *option.secondary_opts], key=len))
    if option.is_flag or option.count:
        return names
    return f"{names} {option.metavar or option.name.upper()}"


def _about(parameter: Any) -> str:
    parts = [(getattr(parameter, "help", None) or "").strip()]
    default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    if default not in {None, False, "", ()} and not callable(default):
        parts.append(f"Default: {getattr(default, 'value', default)}.")
    if parameter.envvar:
        parts.append(f"Also from `${parameter.envvar}`.")
    return " ".join(part for part in parts if part).replace("|", "\\|")


def _epilog(text: str) -> list[str]:
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    lines: list[str] = []
    for paragraph in paragraphs[1:]:
        is_example = bool(re.match(r"(FALLOW_\w+=\S+ )?fallow ", paragraph))
        lines.append(f"    {paragraph}" if is_example else f"\n{paragraph}")
    return [*lines, ""]


def rest_document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    from fallow.hub.web.openapi import openapi_document

    document: dict[str, Any] = json.loads(openapi_document())
    return document


def rest_reference() -> str:
    """Return the page of all routes with their parameters and bodies."""
    from fallow.hub.web.metrics import ABOUT

    document = rest_document()
    pages = [REST_INTRO + "\n".join(_error_rows()) + "\n"]
    for path, item in document["paths"].items():
        pages += [
            _route_page(method, path, operation) for method, operation in item.items() if isinstance(operation, dict)
        ]
    pages += [METRICS_INTRO + "\n".join(f"| `{name}` | {about} |" for name, about in ABOUT.items()) + "\n"]
    pages.append("## Bodies\n")
    pages += [_schema_page(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "\n".join(pages)


def _error_rows() -> list[str]:
    from fallow.hub.web.errors import CODES
    from fallow.model.errors import BY_CODE

    statuses = {code: status for status, code in CODES.items()} | {"internal": 500}
    statuses |= {code: error.status for code, error in BY_CODE.items() if code in ADVICE}
    return [f"| {statuses[code]} | `{code}` | {ADVICE[code]} |" for code in sorted(ADVICE, key=statuses.__getitem__)]


def _route_page(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [
        f"## `{method.upper()} {path}`",
        "",
        f"**{operation.get('summary', '')}.** {operation.get('description', '')}",
        "",
    ]
    parameters = operation.get("parameters", [])
    if parameters:
        lines += ["| parameter | in | |", "| --- | --- | --- |"]
        lines += [f"| `{each['name']}` | {each['in']} | {each.get('description', '')} |" for each in parameters]
        lines.append("")
    body = operation.get("requestBody")
    if body:
        lines += [f"Body: {_content(body['content'])}", ""]
    for status, response in sorted(operation["responses"].items()):
        if status.startswith("2"):
            said = _content(response.get("content", {})) or "nothing"
            about = response.get("description", "")
            lines += [f"Answer {status}: {said}{f'. {about}' if len(about) > 60 else ''}", ""]
    return "\n".join(lines)


def _content(content: dict[str, Any]) -> str:
    return ", ".join(f"{_type(each.get('schema', {}))} as `{media}`" for media, each in content.items())


def _schema_page(name: str, schema: dict[str, Any]) -> str:
    lines = [
        f"### {schema.get('title', name)}",
        "",
        schema.get("description", ""),
        "",
        "| field | type | |",
        "| --- | --- | --- |",
    ]
    required = set(schema.get("required", ()))
    for field, each in schema.get("properties", {}).items():
        note = "" if field in required else ", optional"
        lines.append(f"| `{field}` | {_type(each)}{note} | {each.get('description', '')} |")
    return "\n".join([*lines, ""])


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1].rsplit("_", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for key in ("oneOf", "anyOf"):
        if key in schema:
            return " or ".join(_type(each) for each in schema[key])
    if "enum" in schema:
        return " or ".join(f'"{each}"' for each in schema["enum"])
    if "const" in schema:
        return f'"{schema["const"]}"'
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = schema.get("type", "any JSON value")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


if __name__ == "__main__":
    print({"cli": cli_reference, "rest": rest_reference}[sys.argv[1]]())
