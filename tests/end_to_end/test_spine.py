"""The main job on the bundled clip, stage by stage, by the commands that a user types: from a video to rendered
frames.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from backend.assets import asset_path

ROOT = Path(__file__).resolve().parents[2]
FRAMES, SIZE = 60, 128
HELD_OUT = 12
TRAINING_MINUTES = 1.0


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A folder with everything that the commands made of the first two seconds of the clip."""
    folder = tmp_path_factory.mktemp("spine")
    for command in (
        ("capture", asset_path("demo.mp4"), folder / "clip.capture", "--size", 256, "--max-frames", FRAMES),
        ("track", folder / "clip.capture"),
        ("train", folder / "clip.capture", folder / "clip.effigy", "--size", SIZE, "--minutes", TRAINING_MINUTES),
        ("evaluate", folder / "clip.effigy", folder / "clip.capture", "--out", folder / "evaluation"),
        ("render", folder / "clip.effigy", folder / "clip.capture" / "track.npz", folder / "frames", "--size", SIZE),
        (
            "render",
            folder / "clip.effigy",
            folder / "clip.capture" / "track.npz",
            folder / "clip.mp4",
            "--size",
            SIZE,
            "--format",
            "mp4",
            "--background",
            "#d8d8d8",
        ),
        ("export", folder / "clip.effigy", folder / "clip.capture" / "track.npz", folder / "clip.ply", "--frame", 7),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "backend", *map(str, command)], cwd=ROOT, capture_output=True, text=True
        )
        assert ended.returncode == 0, f"{command[0]}: {ended.stderr}"
        assert ended.stderr == "", f"{command[0]} wrote to stderr: {ended.stderr}"
    return folder


def test_the_avatar_predicts_unseen_frames_far_better_than_one_flat_colour(run_folder):
    metrics = json.loads((run_folder / "evaluation" / "metrics.json").read_text("utf-8"))
    assert metrics["frames"] == HELD_OUT
    errors = []
    for index in range(FRAMES - HELD_OUT, FRAMES):
        truth, mask = (
            cv2.imread(str(run_folder / "evaluation" / "frames" / f"{name}_{index:06d}.png"))
            for name in ("truth", "mask")
        )
        head = truth[mask[..., 0] > 127] / 255
        errors.append(np.square(head - head.mean(axis=0)).mean())
    flat = -10 * np.log10(np.mean(errors))
    assert metrics["psnr_head"] > flat + 3, f"avatar {metrics['psnr_head']:.1f} dB, flat colour {flat:.1f} dB"


def test_the_avatar_file_is_small(run_folder):
    assert (run_folder / "clip.effigy").stat().st_size <= 6_000_000
    assert (run_folder / "evaluation" / "sheet.png").stat().st_size > 10_000


def test_frames_are_transparent_around_the_head_and_opaque_on_it(run_folder):
    files = sorted((run_folder / "frames").iterdir())
    assert [file.name for file in files] == [f"{index:06d}.png" for index in range(FRAMES)]
    alpha = cv2.imread(str(files[10]), cv2.IMREAD_UNCHANGED)[..., 3]
    assert alpha.shape == (SIZE, SIZE)
    head, body = (
        cv2.resize(
            cv2.imread(str(run_folder / "clip.capture" / name / "000010.png"), cv2.IMREAD_GRAYSCALE), (SIZE, SIZE)
        )
        for name in ("head_mattes", "body_mattes")
    )
    inside, outside = cv2.erode(head, np.ones((9, 9))) > 250, cv2.dilate(head + body, np.ones((17, 17))) < 5
    assert inside.sum() > 500 and np.median(alpha[inside]) > 220
    assert outside.sum() > 500 and alpha[outside].mean() < 12


def test_the_video_has_the_clips_frames_and_rate(run_folder):
    with av.open(str(run_folder / "clip.mp4")) as movie, av.open(str(asset_path("demo.mp4"))) as clip:
        assert movie.streams.video[0].average_rate == clip.streams.video[0].average_rate
        images = [frame.to_ndarray(format="rgb24") for frame in movie.decode(video=0)]
    assert len(images) == FRAMES and images[0].shape == (SIZE, SIZE, 3)
    assert np.abs(images[10][2, 2].astype(int) - 0xD8).max() < 8


def test_an_exported_frame_is_a_head_of_gaussians_in_metres(run_folder):
    from backend.splatting.ply import read_ply

    means = read_ply(run_folder / "clip.ply")[0].means[0].numpy()
    extent = np.percentile(means, 98, axis=0) - np.percentile(means, 2, axis=0)
    assert len(means) > 3000 and extent.min() > 0.08 and extent.max() < 0.6
