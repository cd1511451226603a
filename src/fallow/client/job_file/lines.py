"""On which line of a TOML file each key stands: the standard library's parser tells only of syntax errors."""

import re

Key = tuple[str, ...]

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_HEADER = re.compile(rf"\s*\[\[?\s*({_PART}(?:\s*\.\s*{_PART})*)\s*\]")
_TOKEN = re.compile(
    r"""\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''.*?'''|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|\#[^\n]*|[\[\]{}\n]""", re.DOTALL
)


def lines_of(text: str) -> dict[Key, int]:
    """Return the line, from 1, of every table and every key that begins a line."""
    found: dict[Key, int] = {}
    table: Key = ()
    for number, line in _logical_lines(text):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            found.setdefault(table, number)
        elif key := _DOTTED.match(line):
            parts = (*table, *_parts(key[1]))
            for length in range(len(table) + 1, len(parts) + 1):
                found.setdefault(parts[:length], number)
    return found


def line_of(text: str, key: Key) -> int | None:
    """Return the line of a key, or of the table or value that it is in; None if not even that is there."""
    found = lines_of(text)
    while key:
        if key in found:
            return found[key]
        key = key[:-1]
    return None


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Return number and text of each line that does not lie inside of a value that began before."""
    starts = []
    depth, number, first, at = 0, 1, 1, 0
    is_free = True
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word == "\n":
            if is_free:
                starts.append((first, text[at : token.start()]))
            number += 1
            first, at, is_free = number, token.end(), depth == 0
        elif word in "[{":
            depth += 1
        elif word in "]}":
            depth = max(0, depth - 1)
        else:
            number += word.count("\n")
    if is_free:
        starts.append((first, text[at:]))
    return starts


def _parts(dotted: str) -> Key:
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in re.findall(_PART, dotted))
