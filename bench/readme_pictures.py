"""The README's two pictures of an avatar that `build.py demo` has made: at its best, moving, and at its worst.

python -m bench.readme_pictures out/demo docs
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from backend.avatar.avatar import load_avatar
from backend.avatar.render import draw
from backend.errors import EffigyError
from backend.formats.image_files import to_bytes
from backend.head.jaw import jaw_rotations_of_shapes
from backend.head.model import JAW
from backend.training.turntable import WHITE, grid_of, labelled_tile, orbit_track

FRAMES_PER_SECOND: Final = 25
EVERY: Final = 2
"""Frames of the film from one picture of the WebP to the next."""
SIDE: Final = 384
"""Pixels."""
WORST: Final = {"75 degrees, jaw open": (75.0, 1.0), "45 degrees, jaw open": (45.0, 1.0), "75 degrees": (75.0, 0.0)}
"""Title -> camera's yaw in degrees and share of the jaw's range, which the clip has not filmed."""


def moving_picture(frames: Path, out: Path) -> None:
    """The frames of a film as an animated WebP."""
    files = sorted(frames.glob("*.png"))[::EVERY]
    if not files:
        raise EffigyError(f"{frames} has no frames: run `python3 build.py demo` first.")
    images = []
    for file in files:
        with Image.open(file) as image:
            image = image.convert("RGB")
            image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            images.append(image)
    milliseconds = round(1000 * EVERY / FRAMES_PER_SECOND)
    images[0].save(
        out,
        save_all=True,
        append_images=images[1:],
        duration=milliseconds,
        loop=0,
        quality=60,
        method=6,
        minimize_size=True,
    )


def worst_picture(avatar_file: Path, out: Path) -> None:
    """The avatar from where, and with a face that, its clip does not show."""
    avatar = load_avatar(avatar_file)
    count = len(WORST)
    yaws, shares = np.array(list(WORST.values())).T
    rotations = np.zeros((count, 5, 3), np.float32)
    rotations[:, JAW] = shares[:, None] * jaw_rotations_of_shapes(avatar.head_model)["jawOpen"]
    track = orbit_track(avatar, yaws, np.zeros(count), rotations=rotations)
    tiles = [
        labelled_tile(to_bytes(draw(avatar, track, [index], SIDE)[0].over(WHITE)), SIDE // 2, title)
        for index, title in enumerate(WORST)
    ]
    Image.fromarray(grid_of(tiles, count)).save(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="the folder that `build.py demo` has written")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    moving_picture(arguments.demo / "scene", arguments.out / "demo.webp")
    worst_picture(arguments.demo / "demo.effigy", arguments.out / "demo_worst.png")


if __name__ == "__main__":
    main()
