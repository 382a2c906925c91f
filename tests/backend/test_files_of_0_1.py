"""Files that Effigy 0.1 wrote open in today's Effigy with the same numbers; tests/files_of_0_1/README.md lists them."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open

from backend.avatar.avatar import load_avatar
from backend.avatar.settings import AvatarSettings
from backend.errors import Cancelled
from backend.formats.capture import load_capture, read_frame, read_head_matte, read_matte
from backend.formats.track import load_track
from backend.head.formats import load_head
from backend.head.registry import find_head, remember_head
from backend.progress import Progress
from backend.service import cli
from backend.training.checkpoint import load_checkpoint
from backend.training.presets import Preset
from backend.training.trainer import train

FILES = Path(__file__).resolve().parents[1] / "files_of_0_1"
CAPTURE = FILES / "person.capture"
SMALL_HEAD_FINGERPRINT = "bc0b87c07fa510fe"
BUNDLED_HEAD_FINGERPRINT = "0fe5f3408b178d5e"
TRACK_ARRAYS = ("identity", "expression", "rotations", "head_to_camera", "intrinsics", "residual", "flags")


@pytest.fixture(autouse=True)
def small_head_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user has worked with the small head before, so that its avatars and tracks find it by its fingerprint."""
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    remember_head(load_head(FILES / "small_head.npz"), FILES / "small_head.npz")


def stored_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def test_a_head_model_keeps_its_fingerprint() -> None:
    model = load_head(FILES / "small_head.npz")
    assert model.name == "Small open head" and model.fingerprint == SMALL_HEAD_FINGERPRINT
    assert model.template.shape == (400, 3) and model.shape_basis.shape[2] == 6 and model.expression_range == (0, 1)
    assert model.expression_names[0] == "browDownLeft" and len(model.expression_names) == 52
    assert {name: len(vertices) for name, vertices in model.regions.items()} == {
        "face": 115,
        "scalp": 92,
        "lips": 4,
        "eyes": 26,
        "lids": 22,
        "ears": 16,
        "neck": 44,
        "mouth_inside": 107,
        "boundary": 17,
    }
    assert find_head("", SMALL_HEAD_FINGERPRINT, "The test").fingerprint == SMALL_HEAD_FINGERPRINT


def test_a_capture_gives_its_numbers_and_images() -> None:
    capture, stored = load_capture(CAPTURE), stored_arrays(CAPTURE / "landmarks.npz")
    assert (capture.source_name, capture.size, capture.fps, capture.frame_count) == ("demo.mp4", 128, Fraction(25), 10)
    assert capture.source_sha256 == "f5fa6aa7b1d0a979e4d8058a7bd0bfdf6a71279716baa19101f1af72c9b78049"
    assert capture.crop == (40.0, 40.0, 472.0) and capture.training_count == 8
    assert np.allclose(capture.intrinsics[0], (255.7493507974341, 0, 58.57627118644068), rtol=1e-12)
    for name in ("frame_numbers", "frame_times", "landmarks", "scores", "detector_pose", "flags"):
        np.testing.assert_array_equal(getattr(capture, name), stored[name], err_msg=name)
    assert read_frame(capture, 9).shape == (128, 128, 3)
    means = [read(capture, 9).mean() for read in (read_frame, read_matte, read_head_matte)]
    assert means == pytest.approx([114.61, 121.79, 89.04], abs=0.02)


@pytest.mark.parametrize(
    "name, fingerprint, size, has_sigma",
    [
        ("person.capture/track.npz", SMALL_HEAD_FINGERPRINT, 128, True),
        ("person.capture/track_refined.npz", SMALL_HEAD_FINGERPRINT, 128, False),
        ("bundled_head_track.npz", BUNDLED_HEAD_FINGERPRINT, 128, True),
        ("retargeted_track.npz", SMALL_HEAD_FINGERPRINT, 96, False),
    ],
)
def test_a_track_gives_its_numbers(name: str, fingerprint: str, size: int, has_sigma: bool) -> None:
    stored = stored_arrays(FILES / name)
    track = load_track(FILES / name, find_head("", fingerprint, "The test"))
    for field in TRACK_ARRAYS:
        np.testing.assert_array_equal(getattr(track, field), stored[field], err_msg=field)
    assert track.head_fingerprint == fingerprint and track.fps == Fraction(25)
    assert (track.frame_count, track.size, track.training_count) == (10, size, int(stored["training_count"]))
    assert (track.sigma is not None) == has_sigma
    if has_sigma:
        np.testing.assert_array_equal(track.sigma, stored["sigma"])
        assert track.sigma.shape == (10, 52 + 13)


@pytest.mark.parametrize(
    "avatar, track",
    [("person", "person.capture/track.npz"), ("bundled_head", "bundled_head_track.npz")],
)
def test_an_avatar_renders_the_image_that_it_rendered_then(avatar: str, track: str, tmp_path: Path) -> None:
    command = ("render", FILES / f"{avatar}.effigy", FILES / track, tmp_path / "frames", "--size", 96)
    assert cli.main([str(part) for part in command]) == 0
    today, then = (
        cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(int)
        for path in (tmp_path / "frames" / "000009.png", FILES / f"{avatar}_frame_9.png")
    )
    # Stored colours are divided by alpha: where alpha is almost 0 they are noise, so both are compared premultiplied.
    color = np.abs(today[..., :3] * today[..., 3:] - then[..., :3] * then[..., 3:]) / 255
    assert max(color.max(), np.abs(today - then)[..., 3].max()) <= 1


def test_an_avatar_keeps_its_settings_and_metrics() -> None:
    avatar = load_avatar(FILES / "person.effigy")
    assert avatar.settings == SMALL_SETTINGS and avatar.head_model.fingerprint == SMALL_HEAD_FINGERPRINT
    assert avatar.metrics["steps"] == 60 and avatar.metrics["preset"] == "draft"
    assert avatar.metrics["training_frames"] == 8 and avatar.metrics["training_psnr"] == 21.42
    np.testing.assert_array_equal(avatar.identity, load_track(CAPTURE / "track.npz").identity)


SMALL_SETTINGS = AvatarSettings(
    lips_turn=0,
    size=96,
    filters=2,
    latent_size=4,
    chebyshev_order=3,
    neural_per_anchor=1,
    feature_size=2,
    neural_width=8,
    position_bands=3,
    normal_bands=1,
    enhancer_width=4,
)


class StoppedAfterOneStep(Progress):
    done = 0

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self.done = done

    def cancelled(self) -> bool:
        return self.done >= 13


def read_checkpoint(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    with safe_open(path, "pt") as file:
        # Copies: Windows does not replace a file while a tensor is a view of it.
        return json.loads(file.metadata()["effigy"]), {name: file.get_tensor(name).clone() for name in file.keys()}


def test_a_stopped_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """One more step is trained and stopped again: the checkpoint of today has the same entries, one step further."""
    shutil.copytree(CAPTURE, tmp_path / "person.capture")
    path = tmp_path / "stopped.effigy.checkpoint"
    shutil.copyfile(FILES / path.name, path)
    then, before = read_checkpoint(path)
    loaded = load_checkpoint(path)
    assert (loaded.stage, loaded.step) == ("training", 12) and loaded.tensors.keys() == before.keys()
    with pytest.raises(Cancelled):
        train(
            tmp_path / "person.capture",
            tmp_path / "stopped.effigy",
            size=96,
            settings=SMALL_SETTINGS,
            plan=Preset(size=96, warmup_steps=40, steps=60, refinement=True, enhancer_width=4),
            resume=True,
            progress=StoppedAfterOneStep(),
        )
    now, after = read_checkpoint(path)
    assert now["job"] == then["job"] | {"settings": {"blendshapes": 0, "lips_turn": 0} | then["job"]["settings"]}
    assert (now["stage"], now["step"]) == ("training", 13)
    assert after.keys() == before.keys()
    moved = 0.0
    for name, value in before.items():
        if name.startswith("adam.step."):
            assert after[name] == value + 1, name
        elif name.startswith("keeping."):
            assert torch.equal(after[name], value), name
        elif name.startswith("model."):
            # One step of Adam moves a weight by about its rate, which is at most 0.01.
            assert (after[name] - value).abs().max() < 0.05, name
            moved += float((after[name] - value).abs().sum())
    assert moved > 0
