"""The contact sheet of an evaluation: truth beside picture beside error, for the eye that no figure replaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

TILE = 224
GAP = 8
MARGIN = 28
LABEL_WIDTH = 118
HEADER = 96
FOOTER = 44
PAPER = (36, 37, 40)
INK = (236, 236, 232)
FAINT = (150, 152, 156)

ERROR_FULL = 0.25
"""Mean absolute difference over the colours at which the heat map is at its brightest."""


@dataclass(frozen=True)
class SheetRow:
    title: str
    """Such as “worst”."""
    lines: tuple[str, ...]
    """Figures below the title."""
    pictures: tuple[np.ndarray, ...]
    """One (H, W, 3) uint8 for each column."""


def error_heat(picture: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 x 2 -> (H, W, 3) uint8: mean absolute difference, black to yellow at ERROR_FULL."""
    error = np.abs(picture.astype(np.float32) - truth).mean(axis=2) / 255
    return _heat(np.clip(error / ERROR_FULL, 0, 1))


def contact_sheet(title: str, subtitle: str, columns: Sequence[str], rows: Sequence[SheetRow]) -> np.ndarray:
    """(H, W, 3) uint8: the rows under a headline, one tile a column, labelled."""
    width = 2 * MARGIN + LABEL_WIDTH + len(columns) * (TILE + GAP) - GAP
    height = HEADER + 24 + len(rows) * (TILE + GAP) + FOOTER
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    large, medium, small = (ImageFont.load_default(size) for size in (24, 15, 13))
    draw.text((MARGIN, 24), title, INK, large)
    draw.text((MARGIN, 60), subtitle, FAINT, medium)
    left = MARGIN + LABEL_WIDTH
    for column, name in enumerate(columns):
        draw.text((left + column * (TILE + GAP) + TILE / 2, HEADER + 8), name, INK, medium, anchor="mm")
    for index, row in enumerate(rows):
        top = HEADER + 24 + index * (TILE + GAP)
        draw.text((MARGIN, top + 4), row.title, INK, medium)
        draw.multiline_text((MARGIN, top + 28), "\n".join(row.lines), FAINT, small, spacing=5)
        for column, picture in enumerate(row.pictures):
            shrinks = picture.shape[0] > TILE
            tile = cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
            sheet.paste(Image.fromarray(tile), (left + column * (TILE + GAP), top))
    _legend(sheet, draw, left, height - FOOTER + 12, small)
    return np.asarray(sheet)


def _legend(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    left: int,
    top: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    bar = _heat(np.tile(np.linspace(0, 1, 160, dtype=np.float32), (10, 1)))
    text = "error (mean over the colours):  0"
    draw.text((left, top + 5), text, FAINT, font, anchor="lm")
    start = left + round(draw.textlength(text, font)) + 8
    sheet.paste(Image.fromarray(bar), (start, top))
    end = f"{round(ERROR_FULL * 255)} of 255 or more"
    draw.text((start + bar.shape[1] + 8, top + 5), end, FAINT, font, anchor="lm")


def _heat(values: np.ndarray) -> np.ndarray:
    colours = cv2.applyColorMap(np.rint(values * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)
