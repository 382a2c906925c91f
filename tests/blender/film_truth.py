"""Films for tests in Blender, made by the backend's Python: `film_truth.py phone OUT.mp4 TIMES`, `film_truth.py images
FOLDER FIRST COUNT`.

`phone`: frames of the bundled clip at the given times (JSON, seconds). Every tenth frame is pale, and at its
time a burst of tone begins. `images`: numbered PNG files of the bundled clip.
"""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np

CLIP = Path(__file__).resolve().parents[2] / "assets" / "demo.mp4"
SIDE, TICKS, SAMPLES = 256, 1200, 48000
EVERY, BURST = 10, 0.06
"""Frames from one event to the next; seconds of tone."""


def frames(count: int) -> list[np.ndarray]:
    with av.open(str(CLIP)) as container:
        return [
            frame.to_ndarray(format="rgb24", width=SIDE, height=SIDE)
            for frame in islice(container.decode(video=0), count)
        ]


def write_phone(path: Path, times: list[float]) -> None:
    images = frames(len(times))
    sound = np.zeros(round((times[-1] + 0.2) * SAMPLES), np.float32)
    for index in range(EVERY, len(times), EVERY):
        images[index] = (images[index] // 2 + 120).astype(np.uint8)
        start = round(times[index] * SAMPLES)
        burst = np.arange(round(BURST * SAMPLES))
        sound[start : start + len(burst)] = 0.5 * np.sin(burst * 2 * np.pi * 880 / SAMPLES)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"crf": "10", "preset": "ultrafast"})
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, TICKS)
        audio = container.add_stream("aac", rate=SAMPLES, layout="mono")
        for image, time in zip(images, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base, frame.pts = Fraction(1, TICKS), round(time * TICKS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for start in range(0, len(sound), 1024):
            part = np.zeros((1, 1024), np.float32)
            part[0, : len(sound) - start] = sound[start : start + 1024]
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLES, start, Fraction(1, SAMPLES)
            container.mux(audio.encode(frame))
        container.mux(audio.encode())


def write_images(folder: Path, first: int, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(frames(count), first):
        av.VideoFrame.from_ndarray(image, format="rgb24").to_image().save(folder / f"shot.{number:04d}.png")


if __name__ == "__main__":
    kind, out, *rest = sys.argv[1:]
    if kind == "phone":
        write_phone(Path(out), json.loads(rest[0]))
    else:
        write_images(Path(out), *map(int, rest))
