"""This computer's package index, as its owner has configured it for uv or for pip.

uv does not read pip's configuration, but where a mirror has to be used it is often there and nowhere else.
"""

import configparser
import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PackageIndex:
    """Where packages come from."""

    url: str = ""
    """Of a simple index (PEP 503); "": nothing is configured, and uv takes its own."""
    extra: tuple[str, ...] = ()
    """Further ones."""
    find_links: tuple[str, ...] = ()
    """Folders and pages with files."""

    @property
    def urls(self) -> tuple[str, ...]:
        return (*self.extra, self.url) if self.url else self.extra


def configured_index(environment: Mapping[str, str] = os.environ) -> PackageIndex:
    """Return the index that uv's variables or files name; else the one that pip's do."""
    uv, pip = _of_uv(environment), _of_pip(environment)
    found = uv if uv.get("url") or uv.get("extra") or not (pip.get("url") or pip.get("extra")) else pip
    links = uv.get("find_links") or [each for each in pip.get("find_links", []) if "://" in each or Path(each).is_dir()]
    return PackageIndex((found.get("url") or [""])[0], tuple(found.get("extra", [])), tuple(links))


def uv_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment variables that make uv use what pip is configured for; none if uv has settings of its own."""
    uv = _of_uv(environment)
    index = configured_index(environment)
    if uv.get("url") or uv.get("extra"):
        return {}
    variables = {"UV_DEFAULT_INDEX": index.url} if index.url else {}
    if index.extra:
        variables["UV_INDEX"] = " ".join(index.extra)
    if index.find_links:
        variables["UV_FIND_LINKS"] = ",".join(index.find_links)
    return variables


Found = dict[str, list[str]]


def _of_uv(environment: Mapping[str, str]) -> Found:
    found: Found = {}
    for path in _uv_files(environment):
        try:
            settings = tomllib.loads(path.read_text())
        except (OSError, ValueError):
            continue
        _read_uv(found, settings)
        _read_uv(found, settings.get("pip", {}))
    _note(found, "url", environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL"))
    _note(found, "extra", environment.get("UV_INDEX") or environment.get("UV_EXTRA_INDEX_URL"))
    _note(found, "find_links", (environment.get("UV_FIND_LINKS") or "").replace(",", " "))
    return {key: [each.partition("=")[2] if _is_named(each) else each for each in found[key]] for key in found}


def _is_named(entry: str) -> bool:
    """Whether an index is given as name=url."""
    name, equals, _ = entry.partition("=")
    return bool(equals) and ":" not in name and "/" not in name


def _uv_files(environment: Mapping[str, str]) -> list[Path]:
    """Return where uv's settings may be, the most important last."""
    if environment.get("UV_CONFIG_FILE"):
        return [Path(environment["UV_CONFIG_FILE"])]
    home = environment.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")  # noqa: PTH111, PTH118
    return [Path("/etc/uv/uv.toml"), Path(home, "uv", "uv.toml")]


def _read_uv(found: Found, settings: Mapping[str, Any]) -> None:
    _note(found, "url", settings.get("index-url"))
    _note(found, "extra", settings.get("extra-index-url"))
    _note(found, "find_links", settings.get("find-links"))
    indexes = [each for each in settings.get("index", []) if isinstance(each, dict) and each.get("url")]
    for each in indexes:
        _note(found, "url" if each.get("default") else "extra", [each["url"]])


def _of_pip(environment: Mapping[str, str]) -> Found:
    found: Found = {}
    for path in _pip_files(environment):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path)
        except (OSError, configparser.Error, UnicodeDecodeError):
            continue
        for section in ("global", "install"):
            for key, option in _PIP_OPTIONS.items():
                _note(found, key, parser.get(section, option, fallback=None))
    for key, option in _PIP_OPTIONS.items():
        _note(found, key, environment.get("PIP_" + option.upper().replace("-", "_")))
    return found


_PIP_OPTIONS = {"url": "index-url", "extra": "extra-index-url", "find_links": "find-links"}


def _pip_files(environment: Mapping[str, str]) -> list[Path]:
    """Return where pip's settings may be, the most important last."""
    named = environment.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    home = Path(os.path.expanduser("~"))  # noqa: PTH111
    config = environment.get("XDG_CONFIG_HOME") or str(home / ".config")
    files = [
        *(Path(folder, "pip", "pip.conf") for folder in environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")),
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        Path(config, "pip", "pip.conf"),
        Path(sys.prefix, "pip.conf"),
    ]
    if sys.platform == "darwin":
        files.insert(0, Path("/Library/Application Support/pip/pip.conf"))
        files.append(home / "Library" / "Application Support" / "pip" / "pip.conf")
    if sys.platform == "win32":
        files.append(Path(environment.get("APPDATA", str(home)), "pip", "pip.ini"))
    return [*files, Path(named)] if named else files


def _note(found: Found, key: str, value: object) -> None:
    entries = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    if entries:
        found[key] = [str(each) for each in entries]
