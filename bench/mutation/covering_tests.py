"""Which tests run which line: recorded once for each test file and state of the sources, then read from a cache.

A line inside a function is covered by the tests that ran it. Two kinds of lines run at a moment that says nothing about
the tests that depend on them: module constants, which run at import, and kernels, which numba compiles so that coverage
sees none of their lines. Both are traced by their name, to the tests of the lines that mention it. So are functions
whose result is cached, which run in the first of the tests that depend on them only.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HOOKS: Final = Path(__file__).resolve().parent / "hooks"
SHARED: Final = "fixture:"
MEASURED: Final = ("backend", "blender_addon")
SECONDS_PER_FILE: Final = 1500.0
"""After which a test file is given up: several times what the slowest takes on two cores."""
KERNEL: Final = re.compile(r"\b(kernel|njit|jit)\b")
CACHED: Final = re.compile(r"\b(cache|lru_cache)\b")
CONFIGURATION: Final = """[run]
source = {sources}
data_file = {data}
parallel = true
sigterm = true
patch = _exit
context = ${{MUTANT_CONTEXT-}}
disable_warnings = no-data-collected, module-not-imported, module-not-measured, couldnt-parse
"""


@dataclass(frozen=True)
class Workplace:
    """The folders of a run, all below one cache folder that is named after the sources' content."""

    folder: Path
    packages: Path
    """mutmut, libcst and coverage, as installed from requirements/mutants.lock."""
    python: str = sys.executable
    threads: int = 1
    """For each process: those of torch, numpy and numba."""

    @property
    def tree(self) -> Path:
        """The copy of the repository that all tests run in; nothing in it is changed."""
        return self.folder / "tree"

    @property
    def caches(self) -> Path:
        """Compiled kernels and other things that Effigy keeps, as the unchanged sources left them."""
        return self.folder / "caches"

    def environment(self, caches: Path) -> dict[str, str]:
        """For a process that imports the tree's sources; what it caches goes to `caches`.

        Real footage is not used, so that the same tests run on every machine.
        """
        threads = {f"{library}_NUM_THREADS": str(self.threads) for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
        paths = {
            "PYTHONPATH": os.pathsep.join((str(HOOKS), str(self.packages))),
            "NUMBA_CACHE_DIR": str(caches / "numba"),
            "XDG_CACHE_HOME": str(caches / "user"),
            "EFFIGY_CACHE": str(caches / "effigy"),
            "EFFIGY_USER": str(caches / "data"),
            "EFFIGY_SHARED": str(self.folder / "no-footage"),
        }
        return os.environ | paths | threads | {"PYTHONDONTWRITEBYTECODE": "1"}


class CoveringTests:
    """The tests behind every line, and how long each takes."""

    def __init__(self, tree: Path, lines: dict[str, dict[int, set[str]]], tests: dict, fixtures: dict) -> None:
        self.lines = lines
        """File relative to the tree -> line -> contexts: tests, and shared fixtures."""
        self.seconds = {name: test["seconds"] for name, test in tests.items()}
        """Processor seconds of each test."""
        self.shared = {name: tuple(test["shared"]) for name, test in tests.items()}
        self.fixtures: dict[str, float] = {name: fixture["seconds"] for name, fixture in fixtures.items()}
        self._users: dict[str, set[str]] = defaultdict(set)
        for name, keys in self.shared.items():
            for key in keys:
                self._users[key].add(name)
        self._sources = {file: (tree / file).read_text("utf-8").splitlines() for file in self.files(tree)}
        self._owners = {file: owners_of("\n".join(source)) for file, source in self._sources.items()}
        self._cached = {file: cached_functions("\n".join(source)) for file, source in self._sources.items()}

    @staticmethod
    def files(tree: Path) -> list[str]:
        found = (path for package in MEASURED for path in (tree / package).rglob("*.py"))
        return sorted(path.relative_to(tree).as_posix() for path in found)

    def of(self, file: str, lines: Iterable[int]) -> set[str]:
        """The tests that depend on any of these lines of a file."""
        contexts: set[str] = set()
        for line in lines:
            owner = self._owners[file].get(line, range(line, line + 1))
            if isinstance(owner, str):
                contexts |= self._mentioning(owner, set())
            else:
                for run in owner:
                    contexts |= self.lines.get(file, {}).get(run, set())
            if name := self._cached[file].get(line):
                contexts |= self._mentioning(name, set())
        tests = contexts & self.seconds.keys()
        for context in contexts - tests:
            tests |= self._users.get(context, set())
        return tests

    def _mentioning(self, name: str, seen: set[str]) -> set[str]:
        """Contexts of the lines that mention a constant or kernel, and of those that mention what these define."""
        if name in seen:
            return set()
        seen.add(name)
        word, contexts = re.compile(rf"\b{re.escape(name)}\b"), set()
        for file, source in self._sources.items():
            for number, text in enumerate(source, start=1):
                if not word.search(text):
                    continue
                owner = self._owners[file].get(number)
                if isinstance(owner, str) and owner != name:
                    contexts |= self._mentioning(owner, seen)
                contexts |= self.lines.get(file, {}).get(number, set())
        return contexts

    def cheapest_first(self, tests: Iterable[str], budget: float) -> list[str]:
        """Tests by their processor seconds, as many as fit into the budget, at least one; a shared fixture counts
        once.
        """

        def whole(test: str) -> float:
            return self.seconds[test] + sum(self.fixtures.get(key, 0.0) for key in self.shared[test])

        chosen, spent, ready = [], 0.0, set()
        for test in sorted(tests, key=lambda name: (whole(name), name)):
            cost = self.seconds[test] + sum(
                self.fixtures.get(key, 0.0) for key in self.shared[test] if key not in ready
            )
            if chosen and spent + cost > budget:
                continue
            chosen.append(test)
            ready |= set(self.shared[test])
            spent += cost
        return chosen

    def seconds_of(self, tests: Iterable[str]) -> float:
        keys = {key for test in tests for key in self.shared[test]}
        return sum(self.seconds[test] for test in tests) + sum(self.fixtures.get(key, 0.0) for key in keys)


def owners_of(source: str) -> dict[int, str | range]:
    """Line -> the name of the constant or kernel that it defines, or the lines of the function whose default it is."""
    owners: dict[int, str | range] = {}

    def own(node: ast.stmt | ast.expr, name: str | range) -> None:
        owners.update(dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), name))

    def look(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name | ast.Tuple):
                target = node.targets[0]
                own(node, target.id if isinstance(target, ast.Name) else getattr(target.elts[0], "id", ""))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                own(node, node.target.id)
            elif isinstance(node, ast.ClassDef):
                look(node.body)
            elif isinstance(node, ast.FunctionDef):
                if any(KERNEL.search(ast.unparse(decorator)) for decorator in node.decorator_list):
                    own(node, node.name)
                    continue
                for default in (*node.args.defaults, *(value for value in node.args.kw_defaults if value)):
                    own(default, range(node.lineno, (node.end_lineno or node.lineno) + 1))

    look(ast.parse(source).body)
    return owners


def cached_functions(source: str) -> dict[int, str]:
    """Line -> the name of the function around it, if the results of that function are cached."""
    return {
        line: node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
        and any(CACHED.search(ast.unparse(decorator)) for decorator in node.decorator_list)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def recorded(workplace: Workplace, files: list[str], workers: int, say: Callable[[str], None]) -> CoveringTests:
    """The tests of these files of the tree; files that were recorded before are read."""
    sources = ", ".join(str(workplace.tree / package) for package in MEASURED)
    folder = workplace.folder / "coverage"
    folder.mkdir(parents=True, exist_ok=True)

    def place_of(file: str) -> Path:
        parts = ((workplace.tree / file).read_bytes(), (HOOKS / "record_tests.py").read_bytes(), CONFIGURATION.encode())
        content = hashlib.sha256(b"".join(parts)).hexdigest()
        return folder / f"{Path(file).stem}-{content[:12]}"

    def record(file: str) -> None:
        own = place_of(file)
        if (own / "tests.json").is_file():
            return
        own.mkdir(exist_ok=True)
        (own / "coverage.ini").write_text(CONFIGURATION.format(sources=sources, data=own / "data"), "utf-8")
        environment = workplace.environment(workplace.caches) | {
            "COVERAGE_PROCESS_START": str(own / "coverage.ini"),
            "MUTANT_RECORD": str(own / "recording.json"),
        }
        command = (workplace.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "record_tests", file)
        ended = subprocess.run(
            command, cwd=workplace.tree, env=environment, capture_output=True, text=True, timeout=SECONDS_PER_FILE
        )
        if not (own / "recording.json").is_file():
            raise RuntimeError(f"{file} could not be run:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
        (own / "recording.json").replace(own / "tests.json")
        say(f"recorded {file}: {ended.stdout.strip().splitlines()[-1].strip('= ')}")

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(record, files))
    return _read(workplace, [place_of(file) for file in files], say)


def _read(workplace: Workplace, folders: list[Path], say: Callable[[str], None]) -> CoveringTests:
    from coverage import CoverageData

    lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    tests, fixtures = {}, {}
    for folder in folders:
        recording = json.loads((folder / "tests.json").read_text("utf-8"))
        # A skipped test notices nothing, and one that fails as it is cannot tell anything.
        tests |= {name: test for name, test in recording["tests"].items() if "outcome" not in test}
        for name, test in recording["tests"].items():
            if test.get("outcome") == "failed":
                say(f"left out, because it fails without any change: {name}")
        fixtures |= recording["fixtures"]
        for path in sorted(folder.glob("data*")):
            data = CoverageData(str(path))
            data.read()
            for measured in data.measured_files():
                file = Path(measured).relative_to(workplace.tree).as_posix()
                for line, contexts in data.contexts_by_lineno(measured).items():
                    lines[file][line] |= {context.split("|")[-1] for context in contexts if context}
    return CoveringTests(workplace.tree, lines, tests, fixtures)
