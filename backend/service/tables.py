"""The tables of the doctor and of a batch as text, as wide as the terminal and in colour where there is one."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .results import BROKEN, MISSING, OK, AvatarContents, BatchRow, Finding

COLOURS: Final = {OK: "green", MISSING: "yellow", BROKEN: "red"}
STATE_COLOURS: Final = {"done": "green", "failed": "red"}


def findings_table(findings: Sequence[Finding]) -> str:
    table = Table(box=None, pad_edge=False)
    for title in ("What", "State", ""):
        table.add_column(title)
    for finding in findings:
        state = f"[{COLOURS[finding.state]}]{finding.state}[/]"
        table.add_row(finding.subject, state, escape(finding.explanation))
    return _as_text(table)


def contents_table(contents: AvatarContents) -> str:
    """The parts of an avatar's file with their sizes and precisions."""
    table = Table(box=None, pad_edge=False)
    table.add_column("Part")
    table.add_column("numbers", justify="right")
    table.add_column("kB", justify="right")
    table.add_column("stored as")
    for part in contents.parts:
        table.add_row(escape(part.name), f"{part.numbers:,}", f"{part.bytes / 1e3:.1f}", " and ".join(part.types))
    table.add_row("the whole file", "", f"{contents.bytes / 1e3:.1f}", "")
    return _as_text(table)


def batch_table(rows: Sequence[BatchRow]) -> str:
    """What came of each clip of a batch."""
    table = Table(box=None, pad_edge=False)
    table.add_column("Clip")
    for title in ("frames", "reliable", "minutes", "PSNR", "in the head", "MB"):
        table.add_column(title, justify="right")
    table.add_column("")
    for row in rows:
        state = f"[{STATE_COLOURS.get(row.state, 'yellow')}]{row.state}[/]"
        table.add_row(
            escape(row.clip),
            _figure(row.frames, 0),
            _figure(row.tracked, 0),
            _figure(row.minutes, 1),
            _figure(row.psnr, 2),
            _figure(row.psnr_head, 2),
            _figure(row.megabytes, 1),
            f"{state}: {escape(row.reason)}" if row.reason else state,
        )
    return _as_text(table)


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _as_text(table: Table) -> str:
    text = io.StringIO()
    width = shutil.get_terminal_size((140, 24)).columns
    Console(file=text, width=width, force_terminal=sys.stdout.isatty()).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())
