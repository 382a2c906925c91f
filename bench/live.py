"""Live through a camera: milliseconds of each step, frames a second, and how steady a still face is.

    python -m bench.live FILM [--seconds S] [--json FILE]

FILM plays in place of a camera, at 640 × 480. *Still* is its first frame with the noise of a camera (a standard
deviation of 4 in 255, anew in each frame); the jitter is the mean change from one frame to the
next, of the detector alone and after the filter. The lag is that by which the filtered film's channels fit those of
the detector best. `bench.live_in_blender` adds what happens in Blender.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from backend.footage.decode import read_frames
from backend.footage.detector import SCORE_NAMES, FaceDetector
from backend.live.camera import HEIGHT, RATE, WIDTH
from backend.live.watch import Smoother, watch

NOISE, STILL_FRAMES = 4.0, 150
MOVING = 0.05
"""Standard deviation of a channel that moves in the film."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("film", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    images = [fitted(frame.image) for frame in read_frames(arguments.film, max_frames=round(30 * arguments.seconds))]
    figures = {"durations": durations(images, arguments.seconds), **steadiness(images)}
    spent = figures["durations"]
    print("| step | median, ms | 95 %, ms |\n|---|---|---|")
    for step in ("capture", "detector", "smoothing", "whole"):
        print(f"| {step} | {spent[step][0]:.1f} | {spent[step][1]:.1f} |")
    print(f"\n{spent['rate']:.1f} frames a second of {RATE}, {spent['passed_over']} passed over.\n")
    print("| | detector | smoothed |\n|---|---|---|")
    for name in ("channels, still, 1/1000", "head, still, degrees"):
        print(f"| {name} | {figures[name][0]:.2f} | {figures[name][1]:.2f} |")
    print(
        f"\nLag of moving channels: {figures['lag']:.0f} ms. Peak of blinks: {figures['blinks']:.2f} of the detector's."
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1), "utf-8")


def fitted(image: np.ndarray) -> np.ndarray:
    """An image of a camera's size: scaled to fill it, and cut."""
    scale = max(WIDTH / image.shape[1], HEIGHT / image.shape[0])
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    left, top = (size[0] - WIDTH) // 2, (size[1] - HEIGHT) // 2
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)[top : top + HEIGHT, left : left + WIDTH]


def durations(images: list[np.ndarray], seconds: float) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (WIDTH, HEIGHT))
        for image in images:
            writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        writer.release()
        watched = watch(str(film), lambda _: None, lambda so_far: so_far.seconds < seconds)
    found = {
        name: [float(np.median(times)), float(np.quantile(times, 0.95))]
        for name, times in vars(watched.durations).items()
    }
    return found | {"rate": watched.frames / watched.seconds, "passed_over": watched.passed_over}


def steadiness(images: list[np.ndarray]) -> dict:
    random, detector = np.random.default_rng(0), FaceDetector()
    noisy = (images[0] + random.normal(0, NOISE, (HEIGHT, WIDTH, 3)) for _ in range(STILL_FRAMES))
    still = seen_in([image.clip(0, 255).astype(np.uint8) for image in noisy], detector)
    moving = seen_in(images, detector)
    detector.close()
    jitter = [float(1e3 * np.abs(np.diff(channels[30:], axis=0)).mean()) for channels in (still[0], still[2])]
    turns = [
        float(np.degrees(np.linalg.norm(np.diff(head[30:], axis=0), axis=1)).mean()) for head in (still[1], still[3])
    ]
    raw, smooth = moving[0], moving[2]
    moves = raw.std(0) > MOVING
    shifts = np.arange(0, 8, 0.25)
    times = np.arange(len(raw))
    errors = [
        np.mean(
            [
                (np.interp(times[10:-10], times - shift, smooth[:, column]) - raw[10:-10, column]) ** 2
                for column in np.flatnonzero(moves)
            ]
        )
        for shift in shifts
    ]
    lids = [index for index, name in enumerate(SCORE_NAMES) if name.startswith("eyeBlink")]
    span = [
        np.quantile(channels[:, lids].mean(1), 0.99) - np.median(channels[:, lids].mean(1))
        for channels in (raw, smooth)
    ]
    return {
        "channels, still, 1/1000": jitter,
        "head, still, degrees": turns,
        "lag": float(shifts[int(np.argmin(errors))] / RATE * 1e3),
        "blinks": float(span[1] / span[0]),
    }


def seen_in(images: list[np.ndarray], detector: FaceDetector) -> tuple[np.ndarray, ...]:
    """Channels (F, 52) and rotations (F, 3) of the frames with a face, by the detector, then smoothed."""
    smoother, found = Smoother(), []
    for number, image in enumerate(images):
        if faces := detector.detect(image):
            channels = faces[0].scores.astype(np.float64)
            head = Rotation.from_matrix(faces[0].pose[:3, :3]).as_rotvec()
            found.append((channels, head, *smoother(channels, head, number / RATE)))
    return tuple(np.array(column) for column in zip(*found, strict=True))


if __name__ == "__main__":
    main()
