"""Count how many one-line breaks of the core the tests notice.

    python3 build.py bench mutants --count 100 --seed 0 [--json FILE] [--markdown bench/results/mutants.md]

Breaks are drawn by the seed from all lines that the tests of the backend run: first a line, then one of the changes
that it offers (`bench.mutation.mutations`, which also says what is left out and why). For each, only tests that depend
on the line are run, the quickest first, up to a budget of processor seconds, until one fails. A break counts as noticed
when a test fails, hangs or cannot be imported. What only a test beyond the budget would notice counts as unnoticed. All
limits are processor time of the tests, so that a busy machine changes no outcome (`bench.mutation.trial`).

Nothing is changed in the working tree: tests run in a copy of it, and a hook at import (`bench.mutation.hooks`) puts
the changed text in the place of one file. Which tests run which line is recorded once for a state of the sources, which
takes as long as the backend's tests. The copy, the recordings and the outcome of every break that was tried are kept in
.cache/mutants, so that a bench that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from building.environments import BACKEND, REQUIREMENTS, ROOT, Status, pip

from .mutation.covering_tests import CoveringTests, Workplace, recorded
from .mutation.figures import Figures
from .mutation.trial import Break, Interrupted, KeptOutcomes, Outcome, try_break

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
            seconds = covering.seconds_of(chosen)
            breaks.append(Break(file, mutation, mutation.text(), tuple(chosen), len(tests), seconds))
    return breaks


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="build.py bench mutants", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--count", type=int, default=100, help="breaks to try (default: %(default)s); 0 only records")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    parser.add_argument(
        "--budget", type=float, default=60.0, metavar="S", help="processor seconds of tests a break (default: 60)"
    )
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 1)), help="breaks tried at a time")
    parser.add_argument("--within", nargs="+", default=list(CORE), metavar="PATH", help="folders or files to break")
    parser.add_argument("--tests", nargs="+", metavar="FILE", help="test files (default: all of tests/backend)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the figures to the end of this page")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    packages = install_packages()
    sys.path.insert(0, str(packages))
    folder = copy_tree()
    threads = max(1, (os.cpu_count() or 1) // arguments.workers)
    workplace = Workplace(folder, packages, threads=threads)
    workplace.caches.mkdir(exist_ok=True)
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
    outcomes = try_all(workplace, breaks, arguments.workers, say)
    figures = Figures.of(breaks, outcomes, workplace.tree, arguments.seed, arguments.budget)
    print(f"\n{figures.table()}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"tried": figures.tried, "noticed": figures.noticed}) + "\n", "utf-8")
    if arguments.markdown:
        figures.write_into(arguments.markdown)
    return 0 if len(outcomes) == len(breaks) else 1


def try_all(workplace: Workplace, breaks: list[Break], workers: int, say: Callable[[str], None]) -> dict[int, Outcome]:
    """The outcome of each break by its number, said as soon as it is known. Those that an earlier run has kept are not
    tried again. Fewer, if the bench is ended meanwhile.
    """
    kept = KeptOutcomes(workplace)
    outcomes = {number: found for number, change in enumerate(breaks) if (found := kept.find(change))}
    if outcomes:
        say(f"{len(outcomes)} of them were tried before, {sum(each.noticed for each in outcomes.values())} noticed")
    missing = [number for number in range(len(breaks)) if number not in outcomes]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    if missing:
        check = breaks[missing[0]]
        same = replace(check, text=(workplace.tree / check.file).read_text("utf-8"))
        with contextlib.suppress(Interrupted):
            if (outcome := try_break(workplace, same, stop)).noticed:
                raise SystemExit(f"Without any change a test fails as well, so nothing can be measured: {outcome.how}.")
    with ThreadPoolExecutor(workers) as pool:
        running = {pool.submit(try_break, workplace, breaks[number], stop): number for number in missing}
        for done in as_completed(running):
            number = running[done]
            try:
                outcome = done.result()
            except Interrupted:
                continue
            change = breaks[number]
            kept.keep(change, outcome)
            outcomes[number] = outcome
            word = "noticed" if outcome.noticed else "UNNOTICED"
            place = f"{change.file}:{change.mutation.line} ({change.mutation.kind})"
            say(f"{word} {place}, {outcome.seconds:.0f} s: {outcome.how}")
            if not outcome.noticed:
                for line in change.difference((workplace.tree / change.file).read_text("utf-8")):
                    print(f"      {line}", flush=True)
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
