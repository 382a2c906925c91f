"""Capture and track of the demo clip, against the parameters that it was rendered from."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from backend.assets import asset_path
from backend.footage.build import make_capture
from backend.formats.track import load_track
from backend.head.formats import load_head
from backend.head.forward import Head
from backend.tracking.after.camera_vertices import camera_vertices
from backend.tracking.pipeline import track_capture

FRAMES = 100
ROTATION_BOUND = 3.2
"""Degrees, median; 2.8 was measured. The aim is 2 and is missed: yaw comes out a tenth too small and pitch a third. The
focal length, which the clip does not tell, has a part in it: with the true one it is 2.2."""

GAZE_BOUND = 3.8
"""Degrees, median over both eyes; 3.1 was measured, and 5.5 without the irises' own measurement."""


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    capture = make_capture(asset_path("demo.mp4"), tmp_path_factory.mktemp("demo") / "demo.capture", max_frames=FRAMES)
    return capture, track_capture(capture, load_head())


def test_every_frame_of_the_demo_clip_is_captured_and_explained(tracked):
    capture, track = tracked
    assert capture.frame_count == FRAMES
    assert not capture.flags.any() and not track.flags.any()


def test_track_of_the_demo_clip_agrees_with_its_truth(tracked):
    model = load_head()
    face = model.regions["face"]
    found, true = (
        camera_vertices(Head(model), track, range(FRAMES))[:, face]
        for track in (tracked[1], load_track(asset_path("demo_truth.npz"), model))
    )
    errors, angles = [], []
    for ours, theirs in zip(found, true, strict=True):
        centred, target = ours - ours.mean(0), theirs - theirs.mean(0)
        rotation, _ = Rotation.align_vectors(target, centred)
        errors.append(np.linalg.norm(rotation.apply(centred) - target, axis=1))
        angles.append(np.degrees(rotation.magnitude()))
    track, truth = tracked[1], load_track(asset_path("demo_truth.npz"), model)
    blinks = [model.expression_names.index(f"eyeBlink{side}") for side in ("Left", "Right")]
    open_eyes = truth.expression[:FRAMES, blinks].max(1) < 0.3
    gaze = (track.rotations[:, 3:, :2] - truth.rotations[:FRAMES, 3:, :2])[open_eyes]
    gaze_error = np.degrees(np.median(np.linalg.norm(gaze, axis=-1)))
    print(f"gaze {gaze_error:.2f} degrees")
    print(f"vertex error {1e3 * np.median(errors):.2f} mm, rotation {np.median(angles):.2f} degrees")
    assert np.median(errors) < 0.003
    assert np.median(angles) < ROTATION_BOUND
    assert gaze_error < GAZE_BOUND
