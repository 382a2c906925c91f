"""How fast and how true tracking is, as a Markdown table: `python -m bench.tracking VIDEO... [--json FILE]`.

Faces whose truth is known (the open head, random people, landmarks with noise) give what no footage can: the error in
millimetres and degrees. Videos give speed, capture included, and the landmark error on the mesh's own surface.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from backend.footage.build import make_capture
from backend.footage.capture import FrameFlag
from backend.head.formats import load_head
from backend.head.model import HeadModel
from backend.tracking.fit import project_landmarks, track_capture
from backend.tracking.points import reported_points

from .known_clip import make_clip, vertex_and_turn_errors


def measure_known(model: HeadModel, people: int, frames: int) -> dict[str, float]:
    """Errors over some random people; noise of 1 px, turns to 35 degrees."""
    results: list[dict[str, float]] = []
    for seed in range(people):
        with tempfile.TemporaryDirectory() as folder:
            clip = make_clip(model, Path(folder) / "known.capture", frames=frames, noise=1.0, seed=seed, turn=35.0)
            track = track_capture(clip.capture, model)
        distances, turns = vertex_and_turn_errors(track, clip, model)
        gaze = np.linalg.norm(track.rotations[:, 3:] - clip.rotations[:, 3:], axis=-1)
        results.append({
            "vertex_mm": 1000 * float(np.median(distances)), "rotation_deg": float(np.median(turns)),
            "gaze_deg": float(np.rad2deg(np.median(gaze))),
            "expression_error": float(np.abs(track.expression - clip.expression).mean()),
            "lost_share": float(np.mean(track.flags & FrameFlag.TRACK_UNSURE != 0)),
        })
    return {name: float(np.mean([result[name] for result in results])) for name in results[0]}


def measure_video(video: Path, model: HeadModel) -> dict[str, float]:
    """Speed and landmark figures of one clip at 512 pixels."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        capture = make_capture(video, Path(folder) / "bench.capture")
        between = time.perf_counter()
        track = track_capture(capture, model)
        end = time.perf_counter()
    points = project_landmarks(track, model)[:, reported_points()]
    trembling = np.abs(np.diff(points, 2, axis=0))
    return {
        "frames": capture.frame_count, "fps_capture": capture.frame_count / (between - start),
        "fps_track": capture.frame_count / (end - between), "fps_capture_track": capture.frame_count / (end - start),
        "landmark_px": float(np.nanmedian(track.residual)), "worst_px": float(np.nanmax(track.residual)),
        "jitter_px": float(np.nanmedian(trembling)), "unsure": int(np.sum(track.flags & FrameFlag.TRACK_UNSURE != 0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--frames", type=int, default=60, help="of each known clip")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    model = load_head()
    print(f"Tracking with the head model {model.name}, {torch.get_num_threads()} threads, {platform.machine()}\n")

    known = measure_known(model, options.people, options.frames)
    print("| known faces | vertex mm | rotation ° | gaze ° | expression | lost |\n|--:|--:|--:|--:|--:|--:|")
    print(f"| {options.people} × {options.frames} frames | {known['vertex_mm']:.2f} | {known['rotation_deg']:.2f} | "
          f"{known['gaze_deg']:.2f} | {known['expression_error']:.3f} | {known['lost_share']:.1%} |\n", flush=True)

    clips: dict[str, dict[str, float]] = {}
    if options.videos:
        print("| video | frames | capture f/s | track f/s | both f/s | landmarks px | worst frame px | jitter px | unsure |")
        print("|:--|--:|--:|--:|--:|--:|--:|--:|--:|")
    for video in options.videos:
        row = clips[video.name] = measure_video(video, model)
        print(f"| {video.name} | {row['frames']} | {row['fps_capture']:.1f} | {row['fps_track']:.1f} | "
              f"{row['fps_capture_track']:.1f} | {row['landmark_px']:.2f} | {row['worst_px']:.2f} | {row['jitter_px']:.3f} | "
              f"{row['unsure']} |", flush=True)
    if options.json:
        over_clips = {name: float(np.mean([row[name] for row in clips.values()])) if clips else None
                      for name in ("jitter_px", "landmark_px", "fps_capture_track")}
        options.json.write_text(json.dumps({**known, **over_clips, "clips": clips}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
