"""The contact sheet of an evaluation: footage, avatar, their difference and the baselines on some held-out frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..formats.capture import LARGEST_SIZE
from ..formats.image_reading import read_image
from ..reading import reading
from .contact_sheet import SheetRow, contact_sheet, error_heat
from .report import BASELINE_NAMES, Metrics, format_number

ROWS = 6
"""Most frames on the sheet."""


def evaluation_sheet(source_name: str, folder: Path, metrics: Metrics) -> np.ndarray:
    """(H, W, 3) uint8: the best, median and worst frame by PSNR inside the head, and evenly spaced frames. `folder` has
    the images of all frames.
    """
    quality = np.array([frame.metrics.psnr_head or frame.metrics.psnr for frame in metrics.per_frame])
    order = np.argsort(quality)
    named = {int(order[-1]): "best", int(order[len(order) // 2]): "median", int(order[0]): "worst"}
    for row in np.linspace(0, len(quality) - 1, 2 * ROWS).round().astype(int)[1::2]:
        if len(named) < ROWS:
            named.setdefault(int(row), "")
    columns = ["truth", "Effigy", "error", *(BASELINE_NAMES[name] for name in metrics.baselines)]
    rows = []
    for row, label in named.items():
        scored = metrics.per_frame[row]
        image, truth, *rest = (
            _read_png(folder / f"{name}_{scored.frame:06d}.png") for name in ("pred", "truth", *metrics.baselines)
        )
        lines = [f"frame {scored.frame}", f"{scored.metrics.psnr:.1f} dB"]
        lines += [f"{scored.metrics.psnr_head:.1f} in the head"] if scored.metrics.psnr_head is not None else []
        lines += ["new pose"] if scored.extrapolated else []
        rows.append(SheetRow(label or "sample", tuple(lines), (truth, image, error_heat(image, truth), *rest)))
    mean = metrics.mean
    subtitle = (
        f"{metrics.frames} held-out frames: PSNR {mean.psnr:.2f} dB, in the head "
        f"{format_number(mean.psnr_head)}, inner {format_number(mean.psnr_inner)}, SSIM {mean.ssim:.3f}"
    )
    for name, figures in metrics.baselines.items():
        subtitle += f"   ·   {BASELINE_NAMES[name]} {figures.psnr:.2f}"
    return contact_sheet(source_name, subtitle, columns, rows)


def _read_png(path: Path) -> np.ndarray:
    with reading(path, "image", "evaluate the avatar again"):
        return read_image(path, cv2.IMREAD_COLOR_RGB, "evaluate the avatar again", LARGEST_SIZE**2)
