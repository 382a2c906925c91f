"""The last step of deriving the open head: the detector's landmarks are embedded in its surface and saved with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backend.correspondence.landmark_embedding import embed_landmarks
from backend.head.formats import load_head
from backend.progress import SILENT, Progress
from backend.storage import write_beside


def place_landmarks(path: Path, progress: Progress = SILENT) -> None:
    """Fill `landmark_faces` and `landmark_barycentric` of the head model at `path`; run again after the head has
    changed.

    The file's other arrays stay as they are, in the precision in which they were written.
    """
    faces, barycentric = embed_landmarks(load_head(path), progress=progress)
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays |= {"landmark_faces": faces, "landmark_barycentric": barycentric}
    with write_beside(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    progress.message(f"{(faces >= 0).sum()} of {len(faces)} landmarks of the detector have a position on {path.name}.")


if __name__ == "__main__":
    place_landmarks(Path(__file__).resolve().parent.parent / "open_head.npz")
