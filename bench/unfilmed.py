"""What the limits of filmed faces (`backend.avatar.filmed`) cost on held-out frames, and do to the sliders.

    python -m bench.unfilmed AVATAR CAPTURE [AVATAR CAPTURE ...] --out DIR

Each avatar is scored without any such limits, and with those of its capture, which a file from before they were stored
gets here: held-out frames (every fourth, as in `bench.generators`), and the scored sheet of sliders,
which DIR keeps beside the avatar with its limits.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import Final

import torch

from backend.avatar.avatar import Avatar, load_avatar, save_avatar
from backend.avatar.filmed import unlimited_expressions, unlimited_faces
from backend.avatar.filmed_regions import FilmedRegions
from backend.footage.detector import FaceDetector
from backend.formats.capture import load_capture
from backend.formats.track import load_track
from backend.training.filmed_limits import store_materials, store_training_ranges, store_weight_limits
from backend.training.frames import TrainingFrames
from backend.training.slider_scores import SliderScores
from backend.training.slider_sheet import render_scored_sliders

from .generators import score

POSES: Final = 4
"""In which the skin's brightness is taken, as in training."""


def without_limits(avatar: Avatar) -> Avatar:
    """The avatar, changed: each number of a face is still clamped to its range."""
    avatar.networks.filmed.copy_(unlimited_faces(avatar.networks.filmed.shape[1]))
    if (shapes := avatar.networks.blendshapes) is not None:
        shapes.weight_limits.copy_(unlimited_expressions(shapes.weight_limits.shape[1]))
        shapes.materials.zero_()
        unlimited = FilmedRegions(len(shapes.regions.shares), shapes.reveals.numel())
        unlimited.shares *= shapes.regions.changing
        shapes.regions.load_state_dict(unlimited.state_dict())
    return avatar


def with_limits(avatar: Avatar, frames: TrainingFrames) -> Avatar:
    """The avatar, changed: with the limits of these frames, as if it had been trained on them today."""
    store_training_ranges(avatar.networks, frames)
    store_weight_limits(avatar.networks, avatar.head_model, frames)
    rows = torch.linspace(0, len(frames) - 1, POSES).long()
    store_materials(avatar.networks, avatar.head_model, frames.batch_poses(rows))
    return avatar


def row_of(clip: str, limits: str, figures: dict[str, float], sliders: SliderScores) -> str:
    held_out = " / ".join(f"{figures[name]:.2f}" for name in ("psnr", "psnr_head", "psnr_inner"))
    made = sliders.to_json()
    cells = (
        held_out,
        f"{sliders.response:.3f}",
        f"{sliders.monotonic:.0%}",
        f"{sliders.spill:.3f}",
        f"{made['combinations_response']:.3f}",
        f"{made['combinations_spill']:.3f}",
        f"{sliders.found} of {sliders.pictures}",
    )
    return f"| {clip} | {limits} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.unfilmed", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="pairs of an avatar's file and the capture of its training")
    parser.add_argument("--out", type=Path, required=True, help="folder for sheets and avatars")
    arguments = parser.parse_args()
    if len(arguments.files) % 2:
        parser.error("give a capture after each avatar")
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(
        "| clip | limits | held-out PSNR (over white / in the head / inner) | response | grow | spill | combinations |",
        end="",
    )
    print(" their spill | faces found |\n|---|---|---|--:|--:|--:|--:|--:|--:|")
    with closing(FaceDetector()) as detector:
        for path, folder in zip(arguments.files[::2], arguments.files[1::2], strict=True):
            avatar, capture = load_avatar(path), load_capture(folder)
            frames = TrainingFrames(
                [capture],
                [load_track(folder / "track.npz", avatar.head_model)],
                avatar.head_model,
                avatar.settings.size,
            )
            for limits, change in (("none", without_limits), ("filmed", lambda avatar: with_limits(avatar, frames))):
                with torch.no_grad():
                    change(avatar)
                sheet = arguments.out / f"{folder.stem}_{limits}.png"
                sliders = render_scored_sliders(avatar, detector, sheet, size=256)
                print(row_of(folder.stem, limits, score(avatar, capture), sliders), flush=True)
            save_avatar(avatar, arguments.out / f"{folder.stem}.effigy")


if __name__ == "__main__":
    main()
