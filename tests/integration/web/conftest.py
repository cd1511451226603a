import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("programs_for_tests", Path(__file__).parents[2] / "programs.py")
programs_for_tests = sys.modules.setdefault(_spec.name, importlib.util.module_from_spec(_spec))
_spec.loader.exec_module(programs_for_tests)
programs = programs_for_tests.programs
