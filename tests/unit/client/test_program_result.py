"""What a node says of a program's files is not believed."""

import pytest

from fallow import FallowError
from fallow.client.programs import ProgramResult
from fallow.model.page import ResultPage


class Core:
    def __init__(self, folder):
        self.folder = folder

    def temporary_folder(self):
        return str(self.folder)


@pytest.mark.parametrize("name", ["../stolen", "/tmp/stolen", "a/../../stolen"])  # noqa: S108
def test_a_name_that_leads_outside_is_refused(tmp_path, name):
    (tmp_path / "inner").mkdir()
    value = {"outputs": {name: {"size": 4, "text": "evil"}}, "exit_code": 0, "seconds": 0.0}
    result = ProgramResult(Core(tmp_path / "inner"), 7, value, ResultPage(7, 8))
    with pytest.raises(FallowError, match="task 7: .* lies outside of the task's working folder"):
        result.path(name)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
