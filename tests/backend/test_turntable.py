"""The orbit goes around the head and keeps it in the picture; the sheet of expressions shows each one, and the jaw as a
joint.
"""

from __future__ import annotations

from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import torch
from small_capture import SIZE, make_small_capture

from backend.avatar.avatar import Avatar, build_networks
from backend.avatar.settings import AvatarSettings
from backend.errors import Cancelled, EffigyError
from backend.head.formats import load_head
from backend.head.model import JAW
from backend.progress import Progress
from backend.training import turntable
from backend.training.pose_range import head_angles
from backend.training.turntable import COLUMNS, extreme_expressions, orbit_track, render_extremes, render_orbit


@pytest.fixture(scope="module")
def avatar(tmp_path_factory) -> Avatar:
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFIGY_USER", str(tmp_path_factory.mktemp("user")))
    _, track, model = make_small_capture(tmp_path_factory.mktemp("shown"), frames=10)
    patch.undo()
    torch.manual_seed(0)
    networks = build_networks(AvatarSettings(size=SIZE), model, track.identity).eval()
    return Avatar(networks, model, track.identity, networks.settings, {})


def test_the_camera_goes_to_the_side_that_is_said_and_the_whole_head_stays_in_the_picture(avatar):
    yaw, pitch = np.array([0, 45, -45, 0, 0.0]), np.array([0, 0, 0, 20, -20.0])
    track = orbit_track(avatar, yaw, pitch)
    # A camera to the person's left sees the face turned to the picture's left; one above sees it look down.
    angles = head_angles(track)
    assert np.allclose(angles[:, 0], -yaw, atol=0.1) and np.allclose(angles[:, 1], pitch, atol=0.1)
    camera = track.head_to_camera
    points = avatar.shaped.vertices[0].numpy() @ camera[:, :3, :3].swapaxes(1, 2) + camera[:, None, :3, 3]
    pixels = points @ track.intrinsics.T
    pixels = pixels[..., :2] / pixels[..., 2:]
    assert pixels.min() > 0 and pixels.max() < track.size
    assert np.ptp(pixels, axis=1).max() > 0.6 * track.size


def test_the_orbit_is_a_video_that_moves(avatar, tmp_path):
    count = render_orbit(avatar, tmp_path / "orbit.mp4", size=64)
    with av.open(str(tmp_path / "orbit.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(video=0)]
    assert len(frames) == count
    assert np.abs(frames[0] - frames[count // 8]).mean() > 1


def test_the_sheet_has_a_head_for_rest_and_for_every_expression(avatar, tmp_path):
    count = render_extremes(avatar, tmp_path / "sheet.png", size=64)
    assert count == 1 + len(avatar.head_model.expression_names)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[1] == COLUMNS * 64 and sheet.min() < 250


def test_the_jaws_shapes_turn_the_joint_and_all_others_are_alone_at_their_end():
    model = load_head()
    expression, rotations = extreme_expressions(model)
    opened = 1 + model.expression_names.index("jawOpen")
    assert not expression[opened].any() and np.degrees(np.linalg.norm(rotations[opened, JAW])) > 10
    smile = 1 + model.expression_names.index("mouthSmileLeft")
    assert expression[smile].sum() == expression[smile].max() == 1 and not rotations[smile].any()
    assert not expression[0].any()


@pytest.mark.parametrize("name", ["orbit.avi", "orbit"])
def test_a_name_that_is_no_video_is_refused_with_a_sentence(avatar, tmp_path, name):
    with pytest.raises(EffigyError, match="ends in .mp4"):
        render_orbit(avatar, tmp_path / name, size=64)
    assert not list(tmp_path.iterdir())


def test_a_sheet_of_no_given_size_has_heads_of_192_pixels(avatar, tmp_path, monkeypatch):
    drawn = []

    def grey(avatar, track, frames, size):
        drawn.append(size)
        return [SimpleNamespace(over=lambda background: np.full((size, size, 3), 0.5, np.float32))]

    monkeypatch.setattr(turntable, "draw", grey)
    render_extremes(avatar, tmp_path / "sheet.png")
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == COLUMNS * 192 and set(drawn) == {2 * 192}


def test_a_sheet_that_is_cancelled_or_no_picture_leaves_nothing(avatar, tmp_path):
    class Stop(Progress):
        def cancelled(self) -> bool:
            return True

    with pytest.raises(Cancelled):
        render_extremes(avatar, tmp_path / "sheet.png", size=64, progress=Stop())
    with pytest.raises(EffigyError, match="ends in .png"):
        render_extremes(avatar, tmp_path / "sheet.jpg", size=64)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("degrees", [0.0, 181.0])
def test_an_orbit_beyond_half_a_turn_is_refused(avatar, tmp_path, degrees):
    with pytest.raises(EffigyError, match="more than 0, and 180 at most"):
        render_orbit(avatar, tmp_path / "orbit.mp4", size=64, degrees=degrees)
