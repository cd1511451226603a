import json
import sys

import pytest

from fallow.cli.output import Column, JsonOutput, PeopleOutput, PlainOutput, choose

COLUMNS = [Column("Id", lambda row: row["id"][:2], key="id"), Column("Note", lambda row: row["note"] or "")]
ROWS = [{"id": "abcdef", "note": "two\twords"}, {"id": "ghijkl", "note": None}]


def test_pipes_get_tab_separated_values_and_whole_ids(capsys):
    PlainOutput().table(ROWS, COLUMNS, "none")
    assert capsys.readouterr().out == "abcdef\ttwo words\nghijkl\t\n"
    PlainOutput().record(ROWS[0], COLUMNS)
    assert capsys.readouterr().out == "id\tabcdef\nnote\ttwo words\n"


def test_programs_get_the_rows(capsys):
    JsonOutput().table(ROWS, COLUMNS, "none")
    assert json.loads(capsys.readouterr().out) == ROWS
    JsonOutput().record(ROWS[0], COLUMNS)
    assert json.loads(capsys.readouterr().out) == ROWS[0]
    JsonOutput().lines(["a", "b"], "reasons")
    assert json.loads(capsys.readouterr().out) == {"reasons": ["a", "b"]}


def test_people_get_a_table(capsys):
    PeopleOutput().table(ROWS, COLUMNS, "none")
    shown = capsys.readouterr().out
    assert "Note" in shown
    assert "ab" in shown
    assert "abcdef" not in shown
    PeopleOutput().record(ROWS[1], COLUMNS)
    assert "Note" not in capsys.readouterr().out


def test_markup_of_users_is_text(capsys):
    PeopleOutput().table([{"id": "xx", "note": "[red]x[/red]"}], COLUMNS, "none")
    assert "[red]x[/red]" in capsys.readouterr().out


def test_emptiness_is_said_to_people_only(capsys):
    PeopleOutput().table([], COLUMNS, "no jobs yet")
    assert capsys.readouterr() == ("", "no jobs yet\n")
    PlainOutput().table([], COLUMNS, "no jobs yet")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("json_wanted", "is_terminal", "kind"),
    [(True, True, JsonOutput), (False, True, PeopleOutput), (False, False, PlainOutput)],
)
def test_choice(monkeypatch, json_wanted, is_terminal, kind):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    assert isinstance(choose(json_wanted), kind)
