"""Tables as text, for a terminal or a log."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ..training.evaluation import Metrics

_FIGURES = (("psnr", ".2f"), ("psnr_head", ".2f"), ("psnr_inner", ".2f"), ("ssim", ".4f"), ("lpips", ".4f"), ("vgg_hed", ".4f"),
            ("f_lmd", ".2f"), ("sd", ".2f"))


def table_text(titles: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int | None = None) -> str:
    """Cells are rich markup; columns from `numbers_from` on are set to the right. Colour only where a person looks."""
    table = Table(box=None, pad_edge=False)
    for index, title in enumerate(titles):
        table.add_column(title, justify="right" if numbers_from is not None and index >= numbers_from else "left")
    for row in rows:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=shutil.get_terminal_size((140, 24)).columns,
                      force_terminal=sys.stdout.isatty())
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().splitlines())


def metrics_text(metrics: Metrics) -> str:
    """The avatar and what it is held against, a row each; figures that were not measured are left blank."""
    parts = [("avatar", metrics.frames, metrics.mean), ("  in trained poses", metrics.interpolated_frames, metrics.interpolated),
             ("  in new poses", metrics.extrapolated_frames, metrics.extrapolated)]
    parts += [(name.replace("_", " "), metrics.frames, figures) for name, figures in metrics.baselines.items()]
    rows = []
    for name, frames, figures in parts:
        if figures is not None:
            values = [getattr(figures, field) for field, _ in _FIGURES]
            cells = ["" if value is None else format(value, how) for value, (_, how) in zip(values, _FIGURES)]
            rows.append([name, str(frames), *cells])
    return table_text(["held-out frames", "count", *(field for field, _ in _FIGURES)], rows, numbers_from=1)
