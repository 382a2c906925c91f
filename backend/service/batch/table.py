"""The table at the end of a batch: one row for each clip, as `batch.csv` and `batch.json` in the batch's folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

from ...storage import write_beside
from ..results import BatchRow
from .sheet import Clip
from .stage_run import FINISHED, StageOutcome

SCHEMA: Final = 1


def row_of(clip: Clip, outcome: StageOutcome | None) -> BatchRow:
    """`outcome` of the last stage that the clip reached; None if it reached none."""
    if outcome is None:
        return BatchRow(clip.name, "waiting")
    figures = outcome.figures
    return BatchRow(
        clip=clip.name,
        state="done" if outcome.state == FINISHED else outcome.state,
        frames=figures.get("frames"),
        tracked=figures.get("tracked"),
        minutes=round(outcome.seconds / 60, 2),
        psnr=figures.get("psnr"),
        psnr_head=figures.get("psnr_head"),
        megabytes=figures.get("megabytes"),
        reason=outcome.reason,
    )


def write_table(out: Path, rows: Sequence[BatchRow]) -> Path:
    """Write `batch.csv` and `batch.json`; returns the former.

    In `batch.csv` an apostrophe stands before a text that a spreadsheet would calculate as a formula.
    """
    names = [field.name for field in fields(BatchRow)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in asdict(row).items()} for row in rows)
    with write_beside(out / "batch.csv") as temporary:
        temporary.write_bytes(text.getvalue().encode("utf-8"))
    content = {"schema": SCHEMA, "clips": [asdict(row) for row in rows]}
    with write_beside(out / "batch.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return out / "batch.csv"


def _cell(value: Any) -> Any:
    # A sentence may begin with the name of a file, which a stranger may have chosen (OWASP, "CSV Injection").
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
