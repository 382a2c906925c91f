"""Count how many one-line breaks of the core the tests notice.

    python3 build.py bench mutants --count 100 --seed 0 [--json FILE]

Breaks are drawn by the seed from all lines that the tests of the backend run: first a line, then one of the changes
that it offers (`bench.mutation.mutations`). For each, only tests that depend on the line are run, the quickest first,
up to a budget of seconds, until one fails. A break counts as noticed when a test fails, hangs or cannot be imported.
What only a test beyond the budget would notice counts as unnoticed.

Nothing is changed in the working tree: tests run in a copy of it, and a hook at import (`bench.mutation.hooks`) puts
the changed text in the place of one file. Which tests run which line is recorded once for a state of the sources, which
takes as long as the backend's tests; the copy and the recordings are kept in .cache/mutants.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from building.environments import BACKEND, REQUIREMENTS, ROOT, Status, pip

from .mutation.covering_tests import CoveringTests, Workplace, recorded

if TYPE_CHECKING:
    from .mutation.mutations import Mutation

CACHE: Final = ROOT / ".cache" / "mutants"
CORE: Final = tuple(
    f"backend/{room}"
    for room in (
        "head",
        "splatting",
        "avatar",
        "training",
        "tracking",
        "correspondence",
        "retargeting",
        "footage",
        "formats",
        "service",
    )
) + ("blender_addon",)
SECONDS_TO_START: Final = 60.0
"""For Python, the imports and kernels that a change makes numba compile again, before a run counts as hung."""


@dataclass(frozen=True)
class Break:
    """One mutation of one file, and the tests that could notice it, in the order in which they are run."""

    file: str
    mutation: Mutation
    text: str
    tests: tuple[str, ...]
    depending: int
    """How many tests depend on the line, with those beyond the budget."""

    def difference(self, unchanged: str) -> str:
        lines = difflib.unified_diff(unchanged.splitlines(), self.text.splitlines(), n=0, lineterm="")
        return "\n".join(f"      {line}" for line in list(lines)[3:7])


@dataclass(frozen=True)
class Outcome:
    noticed: bool
    how: str
    seconds: float


def install_packages() -> Path:
    """The folder with the packages of requirements/mutants.lock, which the backend's environment does not hold."""
    lock = REQUIREMENTS / "mutants.lock"
    folder = CACHE / f"packages-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if not folder.is_dir():
        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        with Status("installing mutmut, libcst and coverage") as status:
            arguments = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(unfinished)]
            pip(BACKEND, status, "install", [*arguments, "-r", str(lock)])
        unfinished.rename(folder)
    return folder


def copy_tree() -> Path:
    """A folder with a copy of the repository's files, named after the content of all but pages and test files.

    A test file changes nothing for the others, so that a new test costs only its own recording.
    """
    listed = subprocess.run(
        ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    files = sorted(name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file())
    digest = hashlib.sha256()
    for name in files:
        if not name.endswith(".md") and not name.startswith(
            ("tests/backend/test_", "bench/mutants.py", "bench/mutation/")
        ):
            digest.update(f"{name}\0".encode() + (ROOT / name).read_bytes())
    folder = CACHE / digest.hexdigest()[:16]
    if not (folder / "tree").is_dir():
        unfinished = folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        for name in files:
            target = unfinished / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
        unfinished.rename(folder / "tree")
    ours, copies = ROOT / "tests" / "backend", folder / "tree" / "tests" / "backend"
    for old in copies.glob("test_*.py"):
        if not (ours / old.name).is_file():
            old.unlink()
    for new in ours.glob("test_*.py"):
        copy = copies / new.name
        # One that is the same is left alone: another run may be reading it.
        if not copy.is_file() or copy.read_bytes() != new.read_bytes():
            shutil.copy2(new, copy)
    return folder


def choose_breaks(
    covering: CoveringTests, tree: Path, count: int, seed: int, budget: float, within: list[str]
) -> list[Break]:
    """Lines drawn without repeating, evenly over all lines that offer a change, then one change for each."""
    from .mutation.mutations import mutations_of

    files = [
        file for file in covering.files(tree) if any(file.startswith(f"{part}/") or file == part for part in within)
    ]
    offered: dict[tuple[str, int], list[Mutation]] = {}
    for file in files:
        if file in covering.lines:
            for mutation in mutations_of((tree / file).read_text("utf-8")):
                offered.setdefault((file, mutation.line), []).append(mutation)
    # The order of the draw depends on nothing but the lines and the seed.
    chance = random.Random(seed)
    places = sorted(offered)
    chance.shuffle(places)
    breaks: list[Break] = []
    for file, line in places:
        if len(breaks) == count:
            break
        mutation = chance.choice(offered[file, line])
        tests = covering.of(file, {line, *mutation.lines})
        if tests:
            chosen = covering.cheapest_first(tests, budget)
            breaks.append(Break(file, mutation, mutation.text(), tuple(chosen), len(tests)))
    return breaks


def try_break(workplace: Workplace, number: int, change: Break, seconds: float) -> Outcome:
    """Run the tests of a break until one fails."""
    folder = workplace.folder / f"try-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    # A change may spoil what is cached, so each gets a copy. numba knows a kernel by the time at which its file was
    # changed, which stays as it was: where the change may concern a kernel, all are compiled anew.
    compiled = re.search(r"numba|\bkernel\b", change.text) or change.file.startswith("backend/splatting/")
    ignored = shutil.ignore_patterns("numba", "splatting-*") if compiled else None
    shutil.copytree(workplace.caches, folder / "caches", ignore=ignored)
    (folder / "text.py").write_text(change.text, "utf-8")
    environment = workplace.environment(folder / "caches") | {
        "MUTANT_FILE": os.path.realpath(workplace.tree / change.file),
        "MUTANT_TEXT": str(folder / "text.py"),
        "TMPDIR": str(folder),
    }
    command = (
        workplace.python,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--no-header",
        "--tb=no",
        "-rfE",
        "-p",
        "no:cacheprovider",
        *change.tests,
    )
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=workplace.tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS_TO_START + 4 * seconds)
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        output, code = "", None
    # A worker that a failed test left behind goes as well.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)
    took = time.monotonic() - started
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    if code == 0:
        return Outcome(False, f"{len(change.tests)} of {change.depending} tests ran", took)
    if code is None:
        return Outcome(True, "the tests hung", took)
    return Outcome(True, failed[1] if failed else f"the tests ended with code {code}", took)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="build.py bench mutants", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--count", type=int, default=100, help="breaks to try (default: %(default)s); 0 only records")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    parser.add_argument(
        "--budget", type=float, default=60.0, metavar="S", help="seconds of tests a break (default: 60)"
    )
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1)), help="breaks tried at a time")
    parser.add_argument("--within", nargs="+", default=list(CORE), metavar="PATH", help="folders or files to break")
    parser.add_argument("--tests", nargs="+", metavar="FILE", help="test files (default: all of tests/backend)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    packages = install_packages()
    sys.path.insert(0, str(packages))
    folder = copy_tree()
    threads = max(1, (os.cpu_count() or 1) // arguments.workers)
    workplace = Workplace(folder, packages, threads=threads)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {text}", flush=True)

    tests = arguments.tests or sorted(
        path.relative_to(workplace.tree).as_posix() for path in (workplace.tree / "tests" / "backend").glob("test_*.py")
    )
    covering = recorded(workplace, tests, arguments.workers, say)
    if arguments.count == 0:
        return 0
    breaks = choose_breaks(
        covering, workplace.tree, arguments.count, arguments.seed, arguments.budget, arguments.within
    )
    if not breaks:
        raise SystemExit("No line of these files is run by these tests: choose others.")
    say(f"{len(breaks)} breaks drawn with seed {arguments.seed}; {len(covering.seconds)} tests are known")
    outcomes = try_all(workplace, covering, breaks, arguments.workers, say)
    print_table(breaks, outcomes)
    if arguments.json:
        noticed = sum(outcome.noticed for outcome in outcomes)
        arguments.json.write_text(json.dumps({"tried": len(outcomes), "noticed": noticed}) + "\n", "utf-8")
    return 0


def try_all(
    workplace: Workplace, covering: CoveringTests, breaks: list[Break], workers: int, say: Callable[[str], None]
) -> list[Outcome]:
    """Outcomes in the order of the breaks; each is said as soon as it is known."""
    unchanged = {change.file: (workplace.tree / change.file).read_text("utf-8") for change in breaks}
    check = breaks[0]
    same = Break(check.file, check.mutation, unchanged[check.file], check.tests, check.depending)
    if (outcome := try_break(workplace, 0, same, covering.seconds_of(check.tests))).noticed:
        raise SystemExit(f"Without any change a test fails as well, so nothing can be measured: {outcome.how}.")
    outcomes: dict[int, Outcome] = {}
    with ThreadPoolExecutor(workers) as pool:
        running = {
            pool.submit(try_break, workplace, number, change, covering.seconds_of(change.tests)): number
            for number, change in enumerate(breaks)
        }
        for done in as_completed(running):
            number = running[done]
            change, outcome = breaks[number], done.result()
            outcomes[number] = outcome
            word = "noticed" if outcome.noticed else "UNNOTICED"
            place = f"{change.file}:{change.mutation.line} ({change.mutation.kind})"
            say(f"{word} {place}, {outcome.seconds:.0f} s: {outcome.how}")
            if not outcome.noticed:
                print(change.difference(unchanged[change.file]), flush=True)
    return [outcomes[number] for number in range(len(breaks))]


def print_table(breaks: list[Break], outcomes: list[Outcome]) -> None:
    tried, noticed = Counter(), Counter()
    for change, outcome in zip(breaks, outcomes, strict=True):
        room = "/".join(change.file.split("/")[:2])
        for key in (room, "all"):
            tried[key] += 1
            noticed[key] += outcome.noticed
    print("\n| room | breaks | noticed |\n|---|--:|--:|")
    for room in (*sorted(tried.keys() - {"all"}), "all"):
        print(f"| {room} | {tried[room]} | {noticed[room]} ({100 * noticed[room] / tried[room]:.0f} %) |")


if __name__ == "__main__":
    sys.exit(main())
