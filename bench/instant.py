"""The preset `instant`: held-out quality against the number of frames, and against other lengths of training.

    python -m bench.instant CAPTURE [CAPTURE ...] --out DIR [--frames 1 2 4 8 16 32 64] [--seeds 20251 ...]

An avatar is trained by the plan of `instant` from so many evenly spaced frames, and scored as in `bench.generators`.
Seconds are of the clock, reading the frames and writing the file included; `--threads` of the processor. A sheet of
three held-out frames, each beside its truth, is written for each avatar.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from backend.avatar.avatar import Avatar
from backend.avatar.render import draw
from backend.formats.capture import Capture, load_capture
from backend.formats.image_files import to_bytes
from backend.formats.track import load_track
from backend.training.evaluation import WHITE
from backend.training.frames import evenly_spaced, read_truth
from backend.training.optimisation import SEED
from backend.training.presets import PRESETS
from backend.training.trainer import train

from .generators import score


def sheet(avatar: Avatar, capture: Capture) -> Image.Image:
    """Three held-out frames in a row, each as drawn and as filmed."""
    track = load_track(capture.folder / "track.npz", avatar.head_model)
    good = np.flatnonzero(track.flags == 0)
    size = avatar.settings.size
    columns: list[np.ndarray] = []
    for index in evenly_spaced(good[good >= capture.training_count], 3).tolist():
        columns += [to_bytes(draw(avatar, track, [index], size)[0].over(WHITE)), read_truth(capture, index, size)[0]]
    return Image.fromarray(np.hstack(columns))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.instant", description=__doc__.splitlines()[0])
    parser.add_argument("captures", nargs="+", type=Path, help="folders of tracked captures")
    parser.add_argument("--out", type=Path, required=True, help="folder for avatars and sheets")
    parser.add_argument("--frames", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--seeds", nargs="+", type=int, default=[SEED])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    print("| clip | frames | seed | seconds | processor s | held-out PSNR | in the head | inner | SSIM |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for folder in arguments.captures:
        capture = load_capture(folder)
        for count in arguments.frames:
            for seed in arguments.seeds:
                name = arguments.out / f"{folder.stem}-{count}-{seed}"
                started, processor = time.monotonic(), time.process_time()
                avatar = train(
                    folder,
                    name.with_suffix(".effigy"),
                    preset="instant",
                    plan=replace(PRESETS["instant"], frames=count),
                    device="cpu",
                    seed=seed,
                )
                seconds, processor = time.monotonic() - started, time.process_time() - processor
                figures = score(avatar, capture)
                values = " | ".join(f"{figures[key]:.2f}" for key in ("psnr", "psnr_head", "psnr_inner"))
                print(
                    f"| {folder.stem} | {count} | {seed} | {seconds:.0f} | {processor:.0f} | {values} | "
                    f"{figures['ssim']:.3f} |",
                    flush=True,
                )
                sheet(avatar, capture).save(name.with_suffix(".png"))


if __name__ == "__main__":
    main()
