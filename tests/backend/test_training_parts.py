"""What training and evaluation write and decide beside the networks: sheets, tables, runs of frames, checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation
from small_capture import make_small_capture

from backend.avatar.settings import AvatarSettings
from backend.errors import EffigyError
from backend.formats.track import Track
from backend.head.model import HeadModel
from backend.training import temporal_stability, turntable
from backend.training.checkpoint import Checkpoint, check_job, checkpoint_path, load_checkpoint, save_checkpoint
from backend.training.contact_sheet import (
    BACKGROUND,
    ERROR_FULL,
    FOOTER,
    GAP,
    HEADER,
    LABEL_WIDTH,
    MARGIN,
    TILE,
    SheetRow,
    contact_sheet,
    error_heat,
)
from backend.training.frames import evenly_spaced
from backend.training.metrics import ImageMetrics, average, landmark_distance, psnr
from backend.training.pose_range import outside_training
from backend.training.presets import PRESETS, find_preset
from backend.training.report import FrameMetrics, Metrics, format_number
from backend.training.step_draws import StepDraws
from backend.training.temporal_stability import _longest_run, mean_jitter, measure_jitter
from backend.training.validation import MAX_FRAMES, Validation, split_rows

# --- the contact sheet


def test_an_error_is_black_where_there_is_none_and_brightest_from_a_quarter_on() -> None:
    truth = np.zeros((1, 4, 3), np.uint8)
    image = truth.copy()
    image[0, 1], image[0, 2], image[0, 3, 0] = 64, 255, 96
    heat = error_heat(image, truth)[0].astype(int)
    assert heat[0].max() <= 4 and np.abs(heat[1] - heat[2]).max() <= 8 and heat[2].sum() > 550
    assert heat[2][0] > heat[2][2], "yellow, not blue"
    # 96 in one channel is 32 in the mean of the three: half of the way, which is a strong red.
    assert heat[3][0] > 150 > heat[3][1] and ERROR_FULL == 0.25


def test_a_sheet_has_its_tiles_where_their_labels_are() -> None:
    small, large = np.full((64, 64, 3), (200, 0, 0), np.uint8), np.full((512, 512, 3), (0, 200, 0), np.uint8)
    rows = [SheetRow("best", ("PSNR 30",), (small, large)), SheetRow("worst", (), (large, small))]
    sheet = contact_sheet("Title", "subtitle", ("true", "rendered"), rows)
    left, top = MARGIN + LABEL_WIDTH, HEADER + 24
    assert sheet.shape == (top + 2 * (TILE + GAP) + FOOTER, left + 2 * TILE + GAP + MARGIN, 3)
    for row in (0, 1):
        for column in (0, 1):
            y, x = top + row * (TILE + GAP), left + column * (TILE + GAP)
            expected = (200, 0, 0) if row == column else (0, 200, 0)
            assert (sheet[y : y + TILE, x : x + TILE] == expected).all()
            assert (sheet[y + TILE : y + TILE + GAP, x : x + TILE] == BACKGROUND).all()
    assert (sheet[:, :MARGIN] == BACKGROUND).all() and (sheet[:-FOOTER, -MARGIN:] == BACKGROUND).all()
    written = (sheet != BACKGROUND).any(-1)
    for y, x, height, width in (
        (20, MARGIN, 30, 100),
        (56, MARGIN, 24, 100),
        (HEADER, left + 80, 20, 60),
        (HEADER, left + TILE + GAP + 80, 20, 60),
        (top + 2, MARGIN, 20, 60),
        (top + 26, MARGIN, 20, 80),
        (top + TILE + GAP + 2, MARGIN, 20, 60),
    ):
        assert written[y : y + height, x : x + width].any()
    assert not written[top + TILE + GAP + 26 : top + TILE + GAP + 60, MARGIN:left].any(), "no figures, no text"
    legend = sheet[-FOOTER + 12 : -FOOTER + 22, left:]
    bright = np.flatnonzero((legend[5].astype(int).sum(-1) > 500) & (legend[5, :, 2] < 200))
    assert len(bright) > 5, "the scale ends in yellow"


# --- the table of an evaluation


def metrics_of(value: float, **rest: Any) -> ImageMetrics:
    names = ("l2", "psnr", "ssim", "lpips", "vgg_hed", "f_lmd", "sd", "psnr_head", "psnr_inner", "psnr_rim")
    return ImageMetrics(**(dict.fromkeys(names, value) | rest))


RESULT = Metrics(
    mean=metrics_of(1.0, lpips=None),
    frames=9,
    flagged=2,
    landmark_frames=8,
    perceptual_frames=7,
    train_psnr=31.456,
    train_psnr_head=None,
    interpolated_frames=6,
    interpolated=metrics_of(2.0),
    extrapolated_frames=3,
    extrapolated=None,
    refitted=metrics_of(4.0),
    jitter=0.125,
    baselines={"nearest": metrics_of(5.0), "vertex_bound": metrics_of(6.0)},
    baseline_minutes=1.5,
    seconds_per_frame=0.0456,
    megabytes=3.25,
    lpips_network=None,
    protocol="as tracked",
    device="cpu",
    settings={"size": 64},
    per_frame=(FrameMetrics(12, True, metrics_of(7.0)),),
)


def test_the_table_has_a_line_for_each_group_that_was_scored() -> None:
    lines = str(RESULT).splitlines()
    assert lines[0].split() == [
        "frames",
        "psnr",
        "psnr_head",
        "psnr_inner",
        "psnr_rim",
        "ssim",
        "vgg_hed",
        "lpips",
        "f_lmd",
        "sd",
    ]
    rows = {line[:22].strip(): line[22:].split() for line in lines[1:-1]}
    assert list(rows) == [
        "Effigy",
        "poses as in training",
        "tracked by avatar",
        "nearest frame",
        "vertex-bound",
    ]
    assert rows["Effigy"] == ["9", *["1.0000"] * 6, "–", "1.0000", "1.0000"]
    assert [row[0] for row in rows.values()] == ["9", "6", "9", "9", "9"]
    assert [row[1] for row in rows.values()] == ["1.0000", "2.0000", "4.0000", "5.0000", "6.0000"]
    assert {len(line) for line in lines[:-1]} == {22 + 8 + 9 * 12}
    assert lines[-1] == (
        "On training frames PSNR 31.46 dB, in the head –. With a constant expression, landmarks jitter by 0.12 px at "
        "512. 46 ms a frame on cpu, 3.25 MB. 2 flagged frames left out."
    )
    assert format_number(None) == "–" and format_number(1.005, 1) == "1.0" and format_number(2.0) == "2.00"


def test_the_file_of_an_evaluation_has_the_means_first_and_the_groups_by_name() -> None:
    stored = json.loads(json.dumps(RESULT.to_json()))
    assert list(stored)[:2] == ["schema", "l2"] and stored["schema"] == 1 and stored["psnr"] == 1.0
    assert stored["interpolated"]["frames"] == 6 and stored["interpolated"]["psnr"] == 2.0
    assert stored["extrapolated"] == {"frames": 3}
    assert stored["refitted"]["psnr"] == 4.0 and stored["refitted"]["frames"] == stored["frames"]
    assert {name: each["ssim"] for name, each in stored["baselines"].items()} == {"nearest": 5.0, "vertex_bound": 6.0}
    assert stored["per_frame"] == [{"frame": 12, "extrapolated": True, **vars(metrics_of(7.0))}]
    for name in ("frames", "flagged", "landmark_frames", "perceptual_frames", "jitter", "baseline_minutes", "device"):
        assert stored[name] == getattr(RESULT, name)
    assert "mean" not in stored and "interpolated_frames" not in stored


def test_means_are_over_what_was_measured() -> None:
    found = average([metrics_of(1.0, lpips=None), metrics_of(3.0, lpips=None), metrics_of(8.0, lpips=0.5, f_lmd=None)])
    assert found is not None and (found.psnr, found.lpips, found.f_lmd) == (4.0, 0.5, 2.0)
    assert average([]) is None and average([metrics_of(1.0, lpips=None)]).lpips is None  # pyright: ignore[reportOptionalMemberAccess]
    assert psnr(0.01) == pytest.approx(20) and psnr(0.0) == psnr(1e-12) == pytest.approx(100)
    a, b = np.zeros((68, 2)), np.tile((3.0, 4.0), (68, 1))
    assert landmark_distance(a, b, size=256) == 14 and landmark_distance(a, None, size=256) is None
    assert landmark_distance(None, b, size=256) is None


# --- frames that are chosen


def test_frames_are_spread_evenly_with_the_first_and_the_last() -> None:
    indices = np.arange(100, 200)
    assert evenly_spaced(indices, 3).tolist() == [100, 150, 199] and evenly_spaced(indices, 1000).tolist() == list(
        indices
    )
    assert evenly_spaced(indices[:5], 5).tolist() == [100, 101, 102, 103, 104]


def test_validation_takes_two_runs_around_thirds_of_the_clip() -> None:
    rows, kept = split_rows(60, 0.1)
    assert kept.tolist() == [19, 20, 21, 39, 40, 41] and len(rows) == 54
    assert len(split_rows(59, 0.1)[1]) == 0 and len(split_rows(60, 0.01)[1]) == 0
    assert split_rows(90, 0.05)[1].tolist() == [29, 30, 59, 60]
    assert Validation(torch.arange(100)).rows.tolist() == [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]
    assert MAX_FRAMES == 12 and Validation(torch.tensor([4, 8])).rows.tolist() == [4, 8]
    assert len(Validation(torch.arange(0)).rows) == 0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Track, HeadModel]:
    folder = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFIGY_USER", str(folder))
        return make_small_capture(folder, frames=10)[1:]


def test_a_pose_is_outside_from_a_degree_beyond_the_range(small: tuple[Track, HeadModel]) -> None:
    yaws = [0, 10, 10.9, 11.1, -0.9, -1.1, 5, 5, 5, 5]
    cameras = np.tile(np.eye(4), (10, 1, 1))
    turns = Rotation.from_rotvec(np.outer(yaws, (0, 1, 0)), degrees=True).as_matrix()
    cameras[:, :3, :3] = np.diag([1.0, -1, -1]) @ turns
    track = replace(small[0], head_to_camera=cameras, rotations=np.zeros((10, 5, 3), np.float32))
    found = outside_training(track, np.array([0, 1]), np.arange(10))
    assert found.tolist() == [False, False, False, True, False, True, False, False, False, False]


def test_the_draws_of_a_step_are_split_into_equal_parts() -> None:
    crops = [[i, i] for i in range(5)]
    fitted = torch.tensor([True, False, False, True, True])
    draws = StepDraws(torch.arange(5), torch.rand(5, 3), torch.rand(5, 3), crops, torch.rand(5, 8), fitted)
    for parts, sizes in ((1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (4, [2, 2, 1]), (9, [1] * 5)):
        split = draws.split(parts)
        assert [len(part.rows) for part in split] == sizes
        for name in ("rows", "noise", "background", "other_rows", "fitted"):
            assert torch.equal(torch.cat([getattr(part, name) for part in split]), getattr(draws, name))
        assert [crop for part in split for crop in part.crops] == draws.crops


# --- flicker


def test_the_longest_run_without_a_gap_is_measured() -> None:
    assert _longest_run(np.array([1, 2, 5, 6, 7, 9])).tolist() == [5, 6, 7] and _longest_run(
        np.array([4])
    ).tolist() == [4]
    points = np.zeros((5, 2, 2))
    points[2, 0] = (3, 4)
    assert mean_jitter(points) == pytest.approx((5 + 10 + 5) / 6)
    points[4] = np.nan
    assert mean_jitter(points) == pytest.approx((5 + 10) / 4)
    assert mean_jitter(np.full((4, 2, 2), np.nan)) is None and mean_jitter(np.zeros((3, 2, 2))) == 0


def test_flicker_is_what_landmarks_do_beside_the_mesh(
    small: tuple[Track, HeadModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    track, model = small
    model = replace(
        model, landmark_faces=np.arange(478, dtype=np.int32), landmark_barycentric=np.full((478, 3), 1 / 3, np.float32)
    )
    given: list[tuple[list[int], int]] = []
    projected: list[np.ndarray] = []

    def draw(source: Any, posed: Track, frames: list[int], size: int) -> list[Any]:
        given.append((frames, size))
        from backend.tracking.after.residuals import project_landmarks

        projected.append(project_landmarks(posed, model)[frames[0], temporal_stability.IBUG_68])
        return [SimpleNamespace(over=lambda background: np.full((size, size, 3), background[0], np.float32))]

    def measured(offsets: list[float | None]) -> float | None:
        given.clear()
        projected.clear()
        numbers = iter(offsets)

        def detect(image: np.ndarray) -> np.ndarray | None:
            assert image.dtype == np.uint8 and (image == 255).all()
            offset = next(numbers)
            return None if offset is None else (projected[-1] + (offset, 0)) * 128 / track.size

        monkeypatch.setattr(temporal_stability, "draw", draw)
        frames = np.array([0, 2, 3, 4, 5, 9])
        return measure_jitter(SimpleNamespace(), track, model, frames, 128, detect)

    assert measured([0, 0, 0, 0]) == pytest.approx(0, abs=1e-3)
    assert given == [([2], 128), ([3], 128), ([4], 128), ([5], 128)]
    # One pixel of the track's 64 is eight of 512; the second differences are 2 and 1 of them.
    assert measured([0, 1, 0, 0]) == pytest.approx(8 * 1.5, rel=1e-3)
    assert measured([None, 0, 0, 0]) == pytest.approx(0, abs=1e-3) and measured([0, None, 0, 0]) is None
    assert measure_jitter(SimpleNamespace(), track, model, np.array([1, 2, 5]), 64, lambda _: None) is None


# --- turntable


def test_an_orbit_swings_to_both_sides_and_then_up_and_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[np.ndarray] = []
    monkeypatch.setattr(turntable, "orbit_track", lambda avatar, yaw, pitch: asked.extend((yaw, pitch)))
    monkeypatch.setattr(turntable, "render_track", lambda *arguments, **options: options)
    options: Any = turntable.render_orbit(SimpleNamespace(), tmp_path / "a.MP4", size=64)  # pyright: ignore[reportArgumentType]
    assert (options["size"], options["fmt"], options["background"]) == (64, "mp4", "#ffffff")
    yaw, pitch = asked
    assert len(yaw) == len(pitch) == 150 and not yaw[75:].any() and not pitch[:75].any()
    assert yaw.max() == pytest.approx(45, abs=0.1) and yaw.min() == pytest.approx(-45, abs=0.1) and yaw[0] == 0
    assert pitch.max() == pytest.approx(20, abs=0.1) and yaw[:38].min() >= 0 > yaw[38:75].max()
    turntable.render_orbit(SimpleNamespace(), tmp_path / "a.mp4", size=64, degrees=180)  # pyright: ignore[reportArgumentType]
    assert asked[2].max() == pytest.approx(180, abs=0.1)


def test_an_orbit_sees_the_head_as_a_portrait_lens_does(small: tuple[Track, HeadModel]) -> None:
    track, model = small
    avatar: Any = SimpleNamespace(
        head_model=model,
        identity=track.identity,
        settings=SimpleNamespace(size=128),
        shaped=SimpleNamespace(vertices=torch.as_tensor(model.template)[None]),
    )
    seen = turntable.orbit_track(avatar, np.zeros(2), np.zeros(2))
    assert (seen.head_name, seen.head_fingerprint, seen.size, seen.fps) == ("ball", model.fingerprint, 128, 25)
    assert seen.training_count == 0 and not seen.flags.any() and not seen.residual.any()
    assert seen.expression.shape == (2, 4) and seen.rotations.shape == (2, 5, 3)
    focal = 64 / np.tan(np.radians(10))
    assert seen.intrinsics.tolist() == [[pytest.approx(focal), 0, 64], [0, pytest.approx(focal), 64], [0, 0, 1]]
    # The ball's 20 cm, with 15 % around them, fill the picture at its front.
    assert seen.head_to_camera[0, 2, 3] == pytest.approx(1.15 * 0.1 / np.tan(np.radians(10)) + 0.1, rel=2e-3)
    assert seen.head_to_camera[0, :2, 3] == pytest.approx((0, 0), abs=1e-4)
    given = turntable.orbit_track(avatar, np.zeros(1), np.zeros(1), np.ones((1, 4)), np.ones((1, 5, 3)))
    assert (given.expression == 1).all() and (given.rotations == 1).all()


def test_flames_coefficients_end_at_three_deviations(small: tuple[Track, HeadModel]) -> None:
    for end, expected in ((10.0, 3.0), (1.0, 1.0)):
        expression, rotations = turntable.extreme_expressions(replace(small[1], expression_range=(-1.0, end)))
        assert np.array_equal(expression, np.r_[np.zeros((1, 4)), expected * np.eye(4)]) and not rotations.any()


# --- checkpoints and presets


def test_a_checkpoint_keeps_where_its_training_was(tmp_path: Path) -> None:
    path = checkpoint_path(tmp_path / "a.effigy")
    assert path == tmp_path / "a.effigy.checkpoint"
    job = {"capture": "x", "size": 64}
    kept = Checkpoint(job, "Training", 7, 2.5, 9.5, {"w": torch.arange(3.0)})
    save_checkpoint(path, kept)
    back = load_checkpoint(path)
    check_job(path, back, {"capture": "x", "size": 64})
    assert torch.equal(back.tensors["w"], kept.tensors["w"])
    assert (back.job, back.stage, back.step, back.seconds, back.total_seconds) == (job, "Training", 7, 2.5, 9.5)


def test_a_checkpoint_of_another_training_names_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "a.effigy.checkpoint"
    with pytest.raises(EffigyError, match="no checkpoint at .*: there is nothing to resume"):
        load_checkpoint(path)
    save_checkpoint(path, Checkpoint({"a": 1, "b": 2, "c": 3}, "Training", 7, 2.5, 9.5, {"w": torch.zeros(1)}))
    with pytest.raises(EffigyError, match=r"of another training \(a, c, d differ\): give the same settings"):
        check_job(path, load_checkpoint(path), {"a": 0, "b": 2, "c": 4, "d": 5})
    for metadata in ({}, {"effigy": "{"}, {"effigy": "{}"}):
        save_file({"w": torch.zeros(1)}, path, metadata=metadata)
        with pytest.raises(EffigyError, match="is damaged|weights of another program"):
            load_checkpoint(path)


def test_a_checkpoint_tells_what_makes_its_gaussians(tmp_path: Path) -> None:
    path = tmp_path / "a.effigy.checkpoint"
    older = {name: value for name, value in AvatarSettings().to_dict().items() if name != "blendshapes"}
    for settings, expected in (
        (older, {"blendshapes": 0, "feature_size": 16, "neural_width": 32}),
        (
            AvatarSettings(blendshapes=7, feature_size=5).to_dict(),
            {"blendshapes": 7, "feature_size": 5, "neural_width": 32},
        ),
    ):
        save_checkpoint(path, Checkpoint({"settings": settings}, "Training", 7, 2.5, 9.5, {"w": torch.zeros(1)}))
        assert load_checkpoint(path).generator == expected


def test_presets_are_found_by_their_names() -> None:
    assert find_preset("full") is PRESETS["full"]
    with pytest.raises(EffigyError, match=r"There is no preset “best”: choose one of instant, draft, standard, full\."):
        find_preset("best")
