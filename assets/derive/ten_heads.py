"""Ten people drawn at random from the open head's identities, each with different colours: `docs/ten_heads.png`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from backend.errors import EffigyError
from backend.head.formats import load_head
from backend.head.forward import Head
from backend.head.model import NECK
from backend.progress import SILENT, Progress
from backend.storage import write_beside

from .appearance import Appearance, paint_head
from .clothes import shoulders
from .render_person import render_person

SEED = 4
CELL = 240
COLUMNS = 5
SPREAD = 0.8
"""Standard deviations of the identity coefficients: slightly below those of the sampled population."""
_FOCAL, _DISTANCE = 575.0, 0.9

_PEOPLE = (
    Appearance(
        cloth=(0.20, 0.27, 0.33),
        skin=(0.86, 0.68, 0.59),
        hair=(0.36, 0.24, 0.14),
        iris=(0.36, 0.46, 0.52),
        hair_length=0.026,
        stubble=0.2,
    ),
    Appearance(
        cloth=(0.55, 0.50, 0.42),
        skin=(0.47, 0.31, 0.22),
        hair=(0.06, 0.05, 0.05),
        lips=(0.45, 0.26, 0.24),
        iris=(0.20, 0.12, 0.08),
        hair_length=0.010,
        stubble=0.6,
    ),
    Appearance(
        cloth=(0.30, 0.16, 0.17),
        skin=(0.88, 0.71, 0.60),
        hair=(0.08, 0.06, 0.06),
        iris=(0.20, 0.13, 0.09),
        hair_length=0.024,
        stubble=0.0,
    ),
    Appearance(
        cloth=(0.17, 0.24, 0.20),
        skin=(0.72, 0.53, 0.41),
        hair=(0.12, 0.08, 0.06),
        lips=(0.58, 0.33, 0.30),
        iris=(0.25, 0.16, 0.10),
        stubble=0.8,
    ),
    Appearance(
        cloth=(0.36, 0.38, 0.42),
        skin=(0.90, 0.74, 0.66),
        hair=(0.62, 0.47, 0.28),
        iris=(0.38, 0.50, 0.60),
        hair_length=0.030,
        stubble=0.1,
    ),
    Appearance(
        cloth=(0.16, 0.18, 0.24),
        skin=(0.82, 0.62, 0.52),
        hair=(0.46, 0.44, 0.42),
        iris=(0.34, 0.38, 0.34),
        hair_length=0.014,
        stubble=0.7,
        hairline=7.0,
    ),
    Appearance(
        cloth=(0.52, 0.36, 0.18),
        skin=(0.36, 0.23, 0.17),
        hair=(0.05, 0.04, 0.04),
        lips=(0.38, 0.21, 0.20),
        iris=(0.16, 0.10, 0.07),
        hair_length=0.016,
        stubble=0.1,
    ),
    Appearance(
        cloth=(0.20, 0.30, 0.26),
        skin=(0.87, 0.66, 0.56),
        hair=(0.40, 0.22, 0.13),
        iris=(0.32, 0.44, 0.34),
        hair_length=0.024,
        stubble=0.3,
    ),
    Appearance(
        cloth=(0.60, 0.60, 0.60),
        skin=(0.79, 0.60, 0.46),
        hair=(0.07, 0.06, 0.06),
        iris=(0.18, 0.11, 0.08),
        hair_length=0.020,
        stubble=0.4,
    ),
    Appearance(
        cloth=(0.28, 0.22, 0.34),
        skin=(0.62, 0.43, 0.32),
        hair=(0.16, 0.11, 0.08),
        lips=(0.54, 0.30, 0.28),
        iris=(0.30, 0.22, 0.12),
        hair_length=0.028,
        stubble=0.0,
    ),
)


def write_ten_heads(head_path: Path, target: Path, progress: Progress = SILENT) -> None:
    model = load_head(head_path)
    head = Head(model)
    random = np.random.default_rng(SEED)
    intrinsics = np.array([[_FOCAL, 0, CELL / 2], [0, _FOCAL, CELL / 2 - 2], [0, 0, 1]])
    to_camera = np.diag([1.0, -1.0, -1.0])
    background = np.full((CELL, CELL, 3), (0.50, 0.53, 0.56))
    cells = []
    for index, appearance in enumerate(_PEOPLE):
        identity = np.clip(random.normal(0, SPREAD, model.shape_basis.shape[2]), -2, 2).astype(np.float32)
        rotations = torch.zeros(1, 5, 3)
        rotations[0, NECK] = torch.tensor([0.02, random.choice([-1, 1]) * random.uniform(0.15, 0.45), 0.0])
        with torch.no_grad():
            still = torch.zeros(1, head.expression_size)
            posed = head(torch.as_tensor(identity)[None], still, rotations).vertices[0].numpy()
        body, body_faces = shoulders(model, identity)
        sideways = -(posed[:, 0].min() + posed[:, 0].max()) / 3
        placed = [points @ to_camera + [sideways, 0.0, _DISTANCE] for points in (posed, body)]
        painted = paint_head(model, appearance)
        cells.append(render_person(painted, placed[0], (placed[1], body_faces), intrinsics, CELL, background))
        progress.update("ten heads", index + 1, len(_PEOPLE))
    rows = [np.hstack(cells[start : start + COLUMNS]) for start in range(0, len(cells), COLUMNS)]
    with write_beside(target) as temporary:
        if not cv2.imwrite(str(temporary), np.vstack(rows)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9]):
            raise EffigyError(f"{target} could not be written: is the disk full or read-only?")


if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[2]
    write_ten_heads(ROOT / "assets" / "open_head.npz", ROOT / "docs" / "ten_heads.png")
