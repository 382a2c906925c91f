"""The contact sheet of an evaluation: true frame, rendered image and error map side by side, for visual inspection."""

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
BACKGROUND = (36, 37, 40)
TEXT = (236, 236, 232)
FAINT_TEXT = (150, 152, 156)

ERROR_FULL = 0.25
"""Mean absolute difference over the colour channels at which the heat map reaches its brightest value."""


@dataclass(frozen=True)
class SheetRow:
    title: str
    """Such as “worst”."""
    lines: tuple[str, ...]
    """Metrics shown below the title."""
    images: tuple[np.ndarray, ...]
    """One (H, W, 3) uint8 for each column."""


def error_heat(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 x 2 -> (H, W, 3) uint8: mean absolute difference, black to yellow at ERROR_FULL."""
    error = np.abs(image.astype(np.float32) - truth).mean(axis=2) / 255
    return _heat(np.clip(error / ERROR_FULL, 0, 1))


def contact_sheet(title: str, subtitle: str, columns: Sequence[str], rows: Sequence[SheetRow]) -> np.ndarray:
    """(H, W, 3) uint8: a title and a subtitle, then one labelled row of tiles for each of `rows`."""
    width = 2 * MARGIN + LABEL_WIDTH + len(columns) * (TILE + GAP) - GAP
    height = HEADER + 24 + len(rows) * (TILE + GAP) + FOOTER
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    large, medium, small = (ImageFont.load_default(size) for size in (24, 15, 13))
    draw.text((MARGIN, 24), title, TEXT, large)
    draw.text((MARGIN, 60), subtitle, FAINT_TEXT, medium)
    left = MARGIN + LABEL_WIDTH
    for column, name in enumerate(columns):
        draw.text((left + column * (TILE + GAP) + TILE / 2, HEADER + 8), name, TEXT, medium, anchor="mm")
    for index, row in enumerate(rows):
        top = HEADER + 24 + index * (TILE + GAP)
        draw.text((MARGIN, top + 4), row.title, TEXT, medium)
        draw.multiline_text((MARGIN, top + 28), "\n".join(row.lines), FAINT_TEXT, small, spacing=5)
        for column, image in enumerate(row.images):
            shrinks = image.shape[0] > TILE
            tile = cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
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
    text = "error (mean over the colour channels):  0"
    draw.text((left, top + 5), text, FAINT_TEXT, font, anchor="lm")
    start = left + round(draw.textlength(text, font)) + 8
    sheet.paste(Image.fromarray(bar), (start, top))
    end = f"{round(ERROR_FULL * 255)} of 255 or more"
    draw.text((start + bar.shape[1] + 8, top + 5), end, FAINT_TEXT, font, anchor="lm")


def _heat(values: np.ndarray) -> np.ndarray:
    colours = cv2.applyColorMap(np.rint(values * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)
