"""Runs at the start of every Python that `bench.mutants` starts, subprocesses of tests included.

Python imports it because its folder is on PYTHONPATH. `MUTANT_FILE` names a source file, `MUTANT_TEXT` a file with the
text to run in its place. The source file itself is never written to, and no bytecode of the changed text is kept.
`COVERAGE_PROCESS_START` starts coverage, which reads it.
"""

from __future__ import annotations

import os
from importlib.machinery import SourceFileLoader
from types import CodeType

if changed := os.environ.get("MUTANT_FILE"):
    _unchanged = SourceFileLoader.get_code

    def _get_code(self: SourceFileLoader, fullname: str) -> CodeType | None:
        if os.path.realpath(self.path) != changed:
            return _unchanged(self, fullname)
        with open(os.environ["MUTANT_TEXT"], "rb") as text:
            return self.source_to_code(text.read(), self.path)

    SourceFileLoader.get_code = _get_code

if "COVERAGE_PROCESS_START" in os.environ:
    import coverage

    coverage.process_startup()
