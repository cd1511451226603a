"""Document search: how far every text of a folder is from a reference text (PageBox's own use case).

Owns reading and comparing; knows nothing of the grid. Texts travel to the nodes, which need no shared folder.
"""

import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import NamedTuple

_WORD = re.compile(r"[^\W\d_]{2,}")
_TEXT_SUFFIXES = {".py", ".txt", ".md", ".rst", ".html", ".csv", ".json", ".toml", ".c", ".h"}
MAX_TEXT_BYTES = 1 << 20
"""Longer files are left out: data, seldom prose or code."""

Profile = dict[str, float]
"""Weight of each word of a text; the squares of the weights add up to 1."""


class Document(NamedTuple):
    """One text, named by its path below the folder that is searched."""

    name: str
    text: str


def standard_library() -> Path:
    """Return the folder of this Python's own sources: real text that every machine has."""
    return Path(sysconfig.get_path("stdlib"))


def read_documents(folder: Path, *, limit: int | None = None) -> Iterator[Document]:
    """Yield the text files under `folder`, sorted by path, at most `limit` of them.

    Installed packages (site-packages) and files over MAX_TEXT_BYTES are left out; bytes that are not UTF-8 are replaced.
    """
    found = 0
    for path in sorted(folder.rglob("*")):
        if found == limit:
            return
        name = path.relative_to(folder)
        if path.suffix not in _TEXT_SUFFIXES or "site-packages" in name.parts or not path.is_file():
            continue
        if path.stat().st_size <= MAX_TEXT_BYTES:
            found += 1
            yield Document(name.as_posix(), path.read_text(encoding="utf-8", errors="replace"))


def profile(text: str) -> Profile:
    """Return the weights of a text's words: the square root of how often each occurs, scaled to length 1.

    The root keeps a few very common words from drowning the rest.
    """
    counts = Counter(_WORD.findall(text.lower()))
    length = sqrt(sum(counts.values()))
    return {word: sqrt(count) / length for word, count in counts.items()}


def distance(reference: Profile, document: Document) -> float:
    """Return the cosine distance of a document from the reference: 0 for the same words, 1 for none in common."""
    weights = profile(document.text)
    return max(0.0, 1.0 - sum(weight * reference.get(word, 0.0) for word, weight in weights.items()))
