"""Adds the reference pages, generated from the code, to the site: they can't fall behind it."""

from collections.abc import Callable
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from fallow.cli.reference import cli_reference, rest_reference

PAGES: dict[str, Callable[[], str]] = {"reference/cli.md": cli_reference, "reference/rest.md": rest_reference}


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    for path, write in PAGES.items():
        files.append(File.generated(config, path, content=write()))
    return files
