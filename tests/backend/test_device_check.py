"""What the installation's check trains on, and the picture that it compares; `test_devices.py` runs the whole check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from backend.avatar.avatar import Avatar, build_networks
from backend.devices import DeviceReport
from backend.errors import EffigyError
from backend.formats.capture import load_capture, read_frame, read_head_matte, read_matte
from backend.formats.track import Track, load_track
from backend.head.formats import load_head
from backend.service import device_check
from backend.service.device_check import (
    COMPARED_GAUSSIANS,
    FRAMES,
    PLAN,
    SETTINGS,
    SIZE,
    _image_error,
    _write_capture,
    check_device,
)
from backend.splatting.rasterize import rasterize
from backend.splatting.self_test import MAX_IMAGE_ERROR
from backend.splatting.types import Cameras, Raster, Splats


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Track:
    return _write_capture(tmp_path_factory.mktemp("check"))[1]


@pytest.fixture(scope="module")
def avatar(track: Track) -> Avatar:
    torch.manual_seed(0)
    networks = build_networks(SETTINGS, load_head(), track.identity)
    return Avatar(networks.eval(), load_head(), track.identity, SETTINGS)


def test_the_capture_of_the_check_is_one_that_training_takes(tmp_path: Path) -> None:
    written, _ = _write_capture(tmp_path)
    capture, track = load_capture(written.folder), load_track(written.folder / "track.npz", load_head())
    assert capture.frame_count == track.frame_count == track.training_count == FRAMES == 10
    assert capture.size == track.size == SIZE == 64 and capture.fps == track.fps
    assert np.diff(capture.frame_times) == pytest.approx(1 / float(capture.fps))
    assert not capture.flags.any() and not track.flags.any() and capture.crop == (0, 0, 64)
    np.testing.assert_allclose(capture.intrinsics, [[192, 0, 32], [0, 192, 32], [0, 0, 1]])
    np.testing.assert_allclose(track.intrinsics, capture.intrinsics)
    # At rest, upright, a metre before the camera.
    assert (track.head_to_camera == np.diag([1.0, -1, -1, 1]) + np.eye(4, k=1) * [[0], [0], [1], [0]]).all()
    assert not track.expression.any() and not track.rotations.any() and not track.identity.any()
    frames = [read_frame(capture, index) for index in range(FRAMES)]
    assert all(100 < frame.mean() < 155 and frame.std() > 60 for frame in frames) and (frames[0] != frames[1]).any()
    for index in range(FRAMES):
        matte = read_matte(capture, index)
        assert np.array_equal(matte, read_head_matte(capture, index)) and matte[32, 32] == 255 and matte[0, 0] == 0
        assert (matte == 255).sum() == pytest.approx(np.pi * (64 / 3) ** 2, rel=0.03)


@pytest.mark.parametrize(("part", "by"), [("color", 0.25), ("alpha", -0.125)])
def test_the_picture_is_wrong_by_its_largest_difference(
    avatar: Avatar, track: Track, monkeypatch: pytest.MonkeyPatch, part: str, by: float
) -> None:
    drawn: list[Splats] = []

    def draw(splats: Splats, cameras: Cameras) -> Raster:
        drawn.append(splats)
        raster = rasterize(splats, cameras)
        wrong = getattr(raster, part).clone()
        wrong[0, 30, 40] += by
        return replace(raster, **{part: wrong})

    monkeypatch.setattr(device_check, "rasterize", draw)
    assert _image_error(avatar, track) == pytest.approx(abs(by), abs=MAX_IMAGE_ERROR)
    assert COMPARED_GAUSSIANS <= drawn[0].means.shape[1] < 2 * COMPARED_GAUSSIANS
    assert float(drawn[0].opacities.min()) >= 0.5


def test_an_avatar_that_cannot_be_seen_is_no_picture(avatar: Avatar, track: Track) -> None:
    aside = replace(track, head_to_camera=track.head_to_camera + np.eye(4, k=3, dtype=np.float32) * 50)
    with pytest.raises(EffigyError, match="is not in the picture: install the backend again"):
        _image_error(avatar, aside)


@pytest.mark.parametrize(
    ("asked", "trained_on", "error", "said"),
    [
        ("cpu", "cpu", 0.0, "An avatar was trained for 2 steps and drawn on the device cpu."),
        ("auto", "cpu", 0.0, "An avatar was trained for 2 steps and drawn on the device cpu. No GPU."),
        (
            "auto",
            "cuda:0",
            MAX_IMAGE_ERROR,
            "An avatar was trained for 2 steps and drawn on the device cuda:0. No GPU.",
        ),
        ("cuda", "cuda:0", 0.0, "An avatar was trained for 2 steps and drawn on the device cuda:0. No GPU."),
        ("cuda", "cpu", 0.0, None),
        ("cpu", "cpu", 1.01 * MAX_IMAGE_ERROR, "differs from the reference by"),
        ("cpu", "cpu", float("nan"), "differs from the reference by nan"),
    ],
)
def test_the_check_says_what_it_ran_on_and_why(
    monkeypatch: pytest.MonkeyPatch, asked: str, trained_on: str, error: float, said: str | None
) -> None:
    given: dict[str, Any] = {}

    def train(capture: Path, avatar: Path, **options: Any) -> SimpleNamespace:
        given.update(options)
        assert load_track(capture / "track.npz").frame_count == FRAMES and avatar.parent == capture.parent
        return SimpleNamespace(metrics={"device": trained_on})

    monkeypatch.setattr(device_check, "train", train)
    monkeypatch.setattr(device_check, "_image_error", lambda *_: error)
    monkeypatch.setattr(device_check, "usable_cuda", lambda: DeviceReport(False, None, "No GPU."))
    if said is not None and said.startswith("An avatar"):
        assert check_device(asked) == said
    else:
        with pytest.raises(EffigyError, match=said or r"^No GPU\.$"):
            check_device(asked)
    assert given["device"] == asked and given["plan"] == PLAN and given["settings"] == SETTINGS and given["size"] == 64


@pytest.mark.parametrize(("many", "stride"), [(300, 1), (799, 1), (800, 2), (1199, 2), (1200, 3)])
def test_of_many_gaussians_every_so_many_th_is_compared_so_that_400_are_left(
    track: Track, monkeypatch: pytest.MonkeyPatch, many: int, stride: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    splats = Splats(
        0.05 * torch.randn(1, many, 3, generator=generator) + torch.tensor((0.0, 0.0, 1.0)),
        torch.tensor((1.0, 0, 0, 0)).expand(1, many, 4).contiguous(),
        torch.full((1, many, 3), 0.002),
        torch.full((1, many), 0.1),
        torch.rand(1, many, 3, generator=generator),
    )
    drawn: list[Splats] = []

    def draw(given: Splats, cameras: Cameras) -> Raster:
        drawn.append(given)
        return rasterize(given, cameras)

    monkeypatch.setattr(device_check, "rasterize", draw)
    still = replace(track, head_to_camera=np.tile(np.eye(4, dtype=np.float32), (track.frame_count, 1, 1)))
    avatar = SimpleNamespace(splats=lambda *_: splats, device=torch.device("cpu"))
    assert _image_error(avatar, still) < MAX_IMAGE_ERROR
    (given,) = drawn
    assert torch.equal(given.means, splats.means[:, ::stride])
    assert (given.scales == 0.008).all() and (given.opacities == 0.5).all()
