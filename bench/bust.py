"""What the bust adds to an avatar, on frames that neither it nor the head has seen.

    python -m bench.bust AVATAR CAPTURE [AVATAR CAPTURE ...] [--steps 300] [--out DIR] [--json FILE]

The bust is trained below the avatar's finished head. Then every fourth held-out frame is compared with the whole person
over white, as tracked: with the head alone and with the bust, in the person's matte and in the body's. "In the head" is
the head alone in the head's matte, which the bust must not change. DIR gets an image with some frames (footage, head
alone, with bust) and one from the sides.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, Final

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np
import torch

from backend.avatar.avatar import Avatar, load_avatar, save_avatar
from backend.avatar.render import draw
from backend.errors import EffigyError
from backend.formats.capture import Capture, load_capture, read_body_matte, read_head_matte
from backend.formats.image_files import to_bytes, write_png
from backend.formats.track import Track, load_track
from backend.training.bust import train_bust
from backend.training.frames import WHITE, person_matte, read_truth
from backend.training.metrics import psnr
from backend.training.turntable import orbit_track

EVERY: Final = 4
YAWS: Final = (-70.0, -40.0, 0.0, 40.0, 70.0)
"""Degrees of the views from the sides."""
FARTHER: Final = 1.5
"""Than a view of the head alone."""
COLUMNS: Final = {
    "gaussians": "Gaussians",
    "megabytes": "MB",
    "cpu_seconds": "CPU s",
    "head": "in the head",
    "person_head_alone": "person, head alone",
    "person": "person, with bust",
    "body_head_alone": "body, head alone",
    "body": "body, with bust",
}


def measure(path: Path, folder: Path, steps: int, out: Path | None) -> dict[str, Any]:
    """The row of one avatar and its capture."""
    avatar, capture = load_avatar(path).without_bust(), load_capture(folder)
    track = load_track(folder / "track.npz", avatar.head_model)
    if track.torso_to_camera is None:
        raise EffigyError(f"{folder} shows no shoulders, or was tracked before they were followed: track it again.")
    started = time.process_time()
    avatar.bust = train_bust(avatar, capture, track, steps=steps)
    row: dict[str, Any] = {"cpu_seconds": time.process_time() - started, "gaussians": len(avatar.bust or ())}
    saved = (out or folder) / f"{path.stem}_bust.effigy"
    row["megabytes"] = save_avatar(avatar, saved)
    if out is None:
        saved.unlink()
    row |= _scores(avatar, capture, track, out and out / f"{path.stem}_frames.png")
    if out is not None:
        views = orbit_track(avatar, np.array(YAWS), np.zeros(len(YAWS)))
        views.head_to_camera[:, 2, 3] *= FARTHER
        images = [to_bytes(frame.over(WHITE)) for frame in draw(avatar, views, range(len(YAWS)), 384)]
        write_png(out / f"{path.stem}_sides.png", np.concatenate(images, 1))
    return row


def _scores(avatar: Avatar, capture: Capture, track: Track, sheet: Path | None) -> dict[str, float]:
    held_out = np.flatnonzero(track.flags == 0)
    held_out = held_out[held_out >= capture.training_count][::EVERY]
    size, alone = avatar.settings.size, avatar.without_bust()
    found: dict[str, list[float]] = {}
    shown = []
    for number, index in enumerate(held_out.tolist()):
        truth, person = read_truth(capture, index, size, person_matte)
        areas = {"person": person, "body": read_body_matte(capture, index, size)}
        images = [to_bytes(draw(each, track, [index], size)[0].over(WHITE)) for each in (alone, avatar)]
        for suffix, image in zip(("_head_alone", ""), images, strict=True):
            squared = np.square(image / 255.0 - truth / 255.0).mean(2)
            for area, matte in areas.items():
                found.setdefault(area + suffix, []).append(psnr(squared[matte >= 128].mean()))
            if suffix:
                head = read_head_matte(capture, index, size) >= 250
                found.setdefault("head", []).append(psnr(squared[head].mean()))
        if number % max(1, len(held_out) // 4) == 0:
            shown.append(np.concatenate((truth, *images), 1))
    if sheet is not None:
        write_png(sheet, np.concatenate(shown))
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", type=Path, metavar="AVATAR CAPTURE")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if len(arguments.pairs) % 2:
        parser.error("each avatar needs its capture")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = {}
    print("| clip | " + " | ".join(COLUMNS.values()) + " |\n|---" + "|--:" * len(COLUMNS) + "|")
    for path, folder in zip(arguments.pairs[::2], arguments.pairs[1::2], strict=True):
        rows[folder.stem] = row = measure(path, folder, arguments.steps, arguments.out)
        cells = (f"{row[name]:.2f}" if isinstance(row[name], float) else str(row[name]) for name in COLUMNS)
        print(f"| {folder.stem} | " + " | ".join(cells) + " |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
