"""The frames that training compares with: head and neck in their own colours, whatever they were filmed in front of."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from small_capture import SIZE, make_small_capture

from backend.formats.capture import read_head_matte
from backend.training.frames import TrainingFrames, read_cutout, read_truth


def test_half_covered_pixels_are_trained_without_the_room_and_scored_as_they_were_filmed(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    capture, track, model = make_small_capture(tmp_path, frames=10)
    for index in range(capture.frame_count):
        alpha = read_head_matte(capture, index)[..., None] / 255
        filmed = alpha * (200, 60, 30) + (1 - alpha) * (90, 200, 250)
        cv2.imwrite(str(capture.frame_path(index)), filmed.round().astype(np.uint8)[..., ::-1])
    matte = read_head_matte(capture, 3)
    half = (matte > 60) & (matte < 190)
    assert half.sum() > 50
    cutout = read_cutout(capture, 3, SIZE)
    assert np.array_equal(cutout[..., 3], matte)
    assert np.abs(cutout[half][:, :3] - (200.0, 60, 30)).mean() < 15
    batch = TrainingFrames(capture, track, model, SIZE).batch(torch.tensor([3]), SIZE)
    assert np.array_equal((batch.color[0].numpy() * 255).round(), cutout[..., :3])
    assert np.array_equal((batch.matte[0].numpy() * 255).round(), matte)
    truth, _ = read_truth(capture, 3, SIZE)
    share = matte[half][:, None] / 255
    filmed = share * (200, 60, 30) + (1 - share) * (90, 200, 250)
    assert np.abs(truth[half] - (share * filmed + (1 - share) * 255)).max() <= 2
