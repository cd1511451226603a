"""What logs look like, in a command and in a program's own handlers."""

import logging
import re
import subprocess
import sys

from fallow.log import Logger

LINE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} (\w+) +(.*)"


def logged(statements, *, verbose=False):
    script = f"from fallow.cli.logs import log_to_stderr; log_to_stderr(verbose={verbose})\n{statements}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_command_logs_an_event_and_its_fields_per_line():
    [line] = logged(
        "from fallow.log import Logger; Logger('fallow.node').info('task broke', index=3, how='it fell\\nover', name='')"
    )
    assert re.fullmatch(LINE, line).groups() == ("INFO", r"task broke index=3 how='it fell\nover' name=''")


def test_an_exception_has_its_traceback():
    first, *rest = logged(
        "from fallow.log import Logger; log = Logger('fallow.hub')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError as error: log.error('commit failed', exc_info=error, number=4); log.exception('again')\n"
    )
    assert re.fullmatch(LINE, first).groups() == ("ERROR", "commit failed number=4")
    assert sum(line.startswith("ZeroDivisionError") for line in rest) == 2


def test_debug_lines_are_for_those_who_ask():
    statement = "import logging; logging.getLogger('fallow.x').debug('detail')"
    assert logged(statement) == []
    assert len(logged(statement, verbose=True)) == 1


def test_a_program_gets_records_as_from_any_library(caplog):
    with caplog.at_level(logging.INFO, "fallow.node"):
        Logger("fallow.node").warning("blob refused", error="no such digest")
    [record] = caplog.records
    assert (record.name, record.levelname, record.getMessage()) == (
        "fallow.node",
        "WARNING",
        "blob refused error='no such digest'",
    )
    assert record.filename == "test_logs.py"


def test_a_program_that_set_up_no_logs_gets_warnings_alone_and_on_stderr():
    script = "from fallow.log import Logger; log = Logger('fallow.hub'); log.info('a'); log.warning('b', c=1)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "b c=1\n")
