"""The last step of deriving the open head: the detector's points are placed on its surface and saved with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from backend.head.formats import load_head, save_head
from backend.head.forward import landmark_valid
from backend.progress import SILENT, Progress
from backend.tracking.landmark_embedding import embed_landmarks


def place_landmarks(path: Path, progress: Progress = SILENT) -> None:
    """Fill `landmark_faces` and `landmark_barycentric` of the head model at `path`; run again after the head has changed."""
    model = load_head(path)
    faces, barycentric = embed_landmarks(model, progress=progress)
    model = replace(model, landmark_faces=faces, landmark_barycentric=barycentric)
    save_head(model, path)
    progress.message(f"{landmark_valid(model).sum()} of {len(faces)} detector points have a place on {model.name}.")


if __name__ == "__main__":
    place_landmarks(Path(__file__).resolve().parent.parent / "open_head.npz")
