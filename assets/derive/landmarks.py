"""The last step of deriving the open head: the detector's points are placed on its surface and saved with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from backend.head.formats import load_head
from backend.head.model import HeadModel
from backend.progress import SILENT, Progress
from backend.storage import write_beside
from backend.tracking.landmark_embedding import SIZE, View, embed_landmarks

from .appearance import paint_head
from .demo_clip import shoulders
from .render_person import render_person
from .ten_heads import PEOPLE

ROUGH_PICTURES = 72
PICTURES = 120
"""More than a user's head is given, and of painted people: this is done once."""


def place_landmarks(path: Path, progress: Progress = SILENT) -> None:
    """Fill `landmark_faces`, `landmark_barycentric` and `landmark_slide` of the head model at `path`; run again after the head has
    changed.

    The file's other arrays stay as they are, in the precision in which they were written.
    """
    model = load_head(path)
    # Brows and lips are painted where the points are, so these must be known roughly before anybody is painted.
    model = embed_landmarks(model, ROUGH_PICTURES, progress=progress).on(model)
    embedding = embed_landmarks(model, PICTURES, progress=progress, draw=_people(model))
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays |= {f"landmark_{name}": value for name, value in embedding._asdict().items()}
    with write_beside(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    progress.message(f"{(embedding.faces >= 0).sum()} of {len(embedding.faces)} detector points have a place on {path.name}.")


def _people(model: HeadModel) -> Callable[[View, np.ndarray], np.ndarray]:
    """Draws the next of ten people each time it is called."""
    painted = [paint_head(model, replace(look, seed=index)) for index, look in enumerate(PEOPLE)]
    body, body_faces = shoulders(model, np.zeros(model.shape_basis.shape[2], np.float32))
    background = np.full((SIZE, SIZE, 3), (0.50, 0.53, 0.56))
    count = 0

    def draw(view: View, intrinsics: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        placed = body @ view.head_to_camera[:3, :3].T + view.head_to_camera[:3, 3]
        return render_person(painted[count % len(painted)], view.vertices, (placed, body_faces), intrinsics, SIZE, background)

    return draw


if __name__ == "__main__":
    place_landmarks(Path(__file__).resolve().parent.parent / "open_head.npz")
