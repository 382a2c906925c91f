"""Tries what may go wrong: damaged and hostile files, killed processes, full disks, two writers, long days.

    python3 build.py bench faults [--rows NAME …] [--seed 0] [--short] [--counts NAME=N …] [--json FILE] [--out FILE]

Each row of the table is a module of `bench/fault_rows`, which says what it tries and what is asked. It runs as an
unprivileged user in a sandbox with a read-only disk (`bench.fault_sandbox`), so that no fault can harm the machine. The
tests run every row in its short form. Linux, with Debian's package bubblewrap.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Final

from bench.fault_rows.outcome import Outcome
from bench.fault_sandbox import ROOT, missing_sandbox, run_row
from building.environments import BACKEND, BLENDER

SHOWN_FAILURES: Final = 20
"""For each row, below the table."""


@dataclass(frozen=True)
class Tried:
    """A row of the table."""

    name: str
    title: str
    asked: str
    outcome: Outcome
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=row_names(), metavar="NAME", choices=row_names())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="as few tries as the tests make")
    parser.add_argument("--counts", nargs="+", default=[], type=_count, metavar="NAME=N", help="tries of a row")
    parser.add_argument("--json", type=Path, help="write {row: {tried, failed}} into this file")
    parser.add_argument("--out", type=Path, help="write the table into this file as well")
    arguments = parser.parse_args()
    reason = missing_sandbox()
    if not BLENDER.python.exists() and any(needs_blender(_module(name)) for name in arguments.rows):
        reason = "Rows inside Blender need .venv-blender: run “python3 build.py setup” first."
    if reason:
        print(reason, file=sys.stderr)
        return 2
    tried = list(try_rows(arguments.rows, arguments.seed, arguments.short, dict(arguments.counts)))
    text = "\n".join(table(tried, arguments.seed)) + "\n"
    print(text, end="")
    if arguments.json:
        rows = {row.name: {"tried": row.outcome.tried, "failed": len(row.outcome.failures)} for row in tried}
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    if arguments.out:
        arguments.out.write_text(text, "utf-8")
    return int(any(row.outcome.failures for row in tried))


def row_names() -> list[str]:
    files = sorted((ROOT / "bench" / "fault_rows").glob("*.py"))
    return [file.stem for file in files if file.stem not in ("outcome", "run_row") and not file.stem.startswith("_")]


def needs_blender(row: ModuleType) -> bool:
    return getattr(row, "NEEDS_BLENDER", False)


def try_rows(names: list[str], seed: int, short: bool, counts: Mapping[str, int]) -> Iterator[Tried]:
    for name in names:
        row = _module(name)
        count = counts.get(name, row.SHORT if short else row.FULL)
        print(f"{row.TITLE} ({count})", file=sys.stderr, flush=True)
        started = time.monotonic()
        prepare = getattr(row, "prepare", None)
        if prepare and not short:
            prepare()
        environment = BLENDER if needs_blender(row) else BACKEND
        outcome = run_row(name, seed, count, environment.python, BACKEND.python)
        yield Tried(name, row.TITLE, row.ASKED, outcome, time.monotonic() - started)


def table(tried: list[Tried], seed: int) -> list[str]:
    lines = [
        f"Seed {seed}, {datetime.now(UTC):%-d %B %Y}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{platform.system()}.",
        "",
        "| row | asked | tried | failed | seconds | figures |",
        "|---|---|--:|--:|--:|---|",
    ]
    for row in tried:
        figures = "; ".join(f"{name} {value}" for name, value in row.outcome.figures.items())
        failed = len(row.outcome.failures)
        lines.append(f"| {row.title} | {row.asked} | {row.outcome.tried} | {failed} | {row.seconds:.0f} | {figures} |")
    for row in tried:
        if row.outcome.failures:
            lines += ["", f"Failed, {row.title}:", ""]
            lines += [f"- {failure}" for failure in row.outcome.failures[:SHOWN_FAILURES]]
    return lines


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"bench.fault_rows.{name}")


def _count(text: str) -> tuple[str, int]:
    name, number = text.split("=")
    return name, int(number)


if __name__ == "__main__":
    sys.exit(main())
