"""Evaluation on a small synthetic capture: the scored frames, their true images, and the written files."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_capture import SIZE, make_small_capture, true_avatar

from backend.avatar.settings import AvatarSettings
from backend.errors import Cancelled, EffigyError
from backend.formats.track import save_track
from backend.progress import Progress
from backend.splatting.types import Splats
from backend.training import evaluation
from backend.training.baselines import nearest_training_frames, pose_features
from backend.training.evaluation import evaluate
from backend.training.frames import read_truth
from backend.training.pose_range import head_angles, outside_training
from backend.training.temporal_stability import hold_expression, mean_jitter


class BallAvatar:
    """Replaces a trained avatar: a grey ball at the position of the true one."""

    bust = None

    def __init__(self, model, radius: float = 0.05) -> None:
        self.head_model, self.radius = model, radius
        self.settings = AvatarSettings(size=SIZE)
        self.metrics, self.megabytes, self.device = {}, 1.5, torch.device("cpu")
        self.asked: list[int] = []

    def splats(self, track, indices) -> Splats:
        self.asked += list(indices)
        count = len(indices)
        return Splats(
            torch.zeros(count, 1, 3),
            torch.tensor([1.0, 0, 0, 0]).expand(count, 1, 4),
            torch.full((count, 1, 3), self.radius),
            torch.full((count, 1), 0.98),
            torch.full((count, 1, 3), 0.5),
        )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFIGY_USER", str(tmp_path_factory.mktemp("user")))
    yield make_small_capture(tmp_path_factory.mktemp("small"))
    patch.undo()


@pytest.fixture(scope="module")
def evaluated(small, tmp_path_factory):
    """The capture with one held-out frame flagged, evaluated with baselines."""
    capture, track, model = small
    flags = track.flags.copy()
    flags[26] = 8
    save_track(replace(track, flags=flags), capture.folder / "track.npz")
    avatar = BallAvatar(model)
    out = tmp_path_factory.mktemp("out") / "evaluation"
    metrics = evaluate(avatar, capture, out, baselines=True, baseline_minutes=0.05, own_light=True)
    save_track(track, capture.folder / "track.npz")
    return avatar, out, metrics


def test_only_good_held_out_frames_are_scored(evaluated):
    _, out, metrics = evaluated
    scored = [24, 25, 27, 28, 29]
    assert [f.frame for f in metrics.per_frame] == scored
    assert metrics.frames == 5 and metrics.flagged == 1
    names = {p.name for p in (out / "frames").iterdir()}
    kinds = ("pred", "truth", "mask", "nearest", "vertex_bound")
    assert names == {f"{kind}_{index:06d}.png" for kind in kinds for index in scored}


def test_metrics_json_holds_the_documented_fields(evaluated):
    _, out, metrics = evaluated
    stored = json.loads((out / "metrics.json").read_text("utf-8"))
    for name in (
        "l2",
        "psnr",
        "ssim",
        "lpips",
        "vgg_hed",
        "f_lmd",
        "sd",
        "psnr_head",
        "psnr_inner",
        "psnr_rim",
        "seconds_per_frame",
        "megabytes",
        "frames",
        "protocol",
        "device",
        "settings",
        "extrapolated",
        "train_psnr",
        "baselines",
    ):
        assert name in stored, name
    assert stored["lpips"] is None and stored["f_lmd"] is None and stored["landmark_frames"] == 0
    assert stored["protocol"].startswith("as tracked") and stored["megabytes"] == 1.5
    assert stored["settings"]["size"] == SIZE and stored["seconds_per_frame"] > 0
    assert stored["extrapolated"]["frames"] + stored["interpolated"]["frames"] == stored["frames"] == 5
    assert set(stored["baselines"]) == {"nearest", "vertex_bound"}
    assert stored["psnr"] == pytest.approx(metrics.mean.psnr)


def test_the_score_in_the_captures_own_light_stands_beside_the_others(evaluated):
    _, out, metrics = evaluated
    assert metrics.relit is not None and metrics.relit.psnr_head != metrics.mean.psnr_head
    stored = json.loads((out / "metrics.json").read_text("utf-8"))
    assert stored["own_light"] == {"frames": 5} | stored["own_light"]
    assert stored["own_light"]["psnr_head"] == pytest.approx(metrics.relit.psnr_head)
    assert f"{metrics.relit.psnr_head:.4f}" in next(line for line in str(metrics).splitlines() if "own light" in line)


def test_the_printed_table_lists_every_baseline(evaluated):
    _, _, metrics = evaluated
    lines = str(metrics).splitlines()
    assert lines[1].startswith("Effigy") and f"{metrics.mean.psnr:.4f}" in lines[1]
    nearest = next(line for line in lines if line.startswith("nearest frame"))
    assert f"{metrics.baselines['nearest'].psnr_head:.4f}" in nearest
    assert any(line.startswith("vertex-bound") for line in lines) and "1 flagged" in lines[-1]


def test_the_metrics_can_be_recomputed_from_the_saved_images(evaluated):
    _, out, metrics = evaluated
    values = []
    for entry in metrics.per_frame:
        image, truth, mask = (
            cv2.imread(str(out / "frames" / f"{name}_{entry.frame:06d}.png"), cv2.IMREAD_UNCHANGED) / 255.0
            for name in ("pred", "truth", "mask")
        )
        squared = ((image - truth) ** 2).mean(axis=2)
        values.append(-10 * np.log10(squared.mean()))
        assert entry.metrics.psnr_head == pytest.approx(-10 * np.log10(squared[mask >= 0.5].mean()), abs=1e-3)
    assert metrics.mean.psnr == pytest.approx(np.mean(values), abs=1e-3)


def test_truth_is_white_outside_the_head_matte(small):
    capture, _, _ = small
    truth, matte = read_truth(capture, 25, SIZE)
    assert (truth[matte == 0] == 255).all() and (truth[matte == 255] < 255).any()


def test_a_trained_baseline_beats_a_grey_ball(evaluated):
    """Three seconds of training are enough only if the baseline has the same cameras and poses as the avatar."""
    _, _, metrics = evaluated
    assert metrics.baselines["vertex_bound"].psnr_head > metrics.mean.psnr_head + 3
    assert metrics.baseline_minutes == 0.05


def test_the_contact_sheet_shows_every_column(evaluated):
    _, out, _ = evaluated
    sheet = cv2.imread(str(out / "sheet.png"))
    assert sheet.shape[1] > 5 * 224 and sheet.shape[0] > 3 * 224


def test_nearest_frame_is_the_one_with_the_same_pose_and_expression(small):
    _, track, model = small
    expression, cameras = track.expression.copy(), track.head_to_camera.copy()
    rotations = track.rotations.copy()
    twin = {27: 4, 28: 13}
    for copy, original in twin.items():
        expression[copy], cameras[copy], rotations[copy] = expression[original], cameras[original], rotations[original]
        expression[copy, 0] += 0.02
    changed = replace(track, expression=expression, head_to_camera=cameras, rotations=rotations)
    found = nearest_training_frames(changed, model, np.arange(24), np.array(list(twin)))
    assert found.tolist() == list(twin.values())


def test_pose_features_measure_the_motion_in_the_image_in_pixels(small):
    """A sideways step of 1 cm at 0.6 m and 140 px focal length moves every point by 2.33 px, which is the distance."""
    _, track, model = small
    cameras = track.head_to_camera.copy()
    cameras[1:] = cameras[0]
    cameras[1, 0, 3] += 0.01
    rotations, expression = (np.repeat(x[:1], 30, axis=0) for x in (track.rotations, track.expression))
    expression[2, 1] += 0.3
    features = pose_features(replace(track, head_to_camera=cameras, rotations=rotations, expression=expression), model)
    assert np.linalg.norm(features[1] - features[0]) == pytest.approx(140 * 0.01 / 0.6, rel=0.25)
    face = model.regions["face"]
    moved = 0.3 * np.sqrt((model.expression_basis[face, :, 1] ** 2).sum(1).mean()) * 140 / 0.6
    assert np.linalg.norm(features[2] - features[0]) == pytest.approx(moved, rel=0.25)


def test_head_angles_are_degrees_in_camera_space(small):
    _, track, _ = small
    facing = np.diag([1.0, -1, -1])
    angles = np.array([[0, 0, 0], [30, 0, 0], [0, 20, 0], [0, 0, -15], [40, -10, 25]], float)
    cameras = np.tile(np.eye(4, dtype=np.float32), (5, 1, 1))
    for camera, (yaw, pitch, roll) in zip(cameras, angles):
        # In the camera: roll about the line of sight first, then pitch, then yaw; y points down.
        rotation = Rotation.from_euler("zxy", [roll, pitch, -yaw], degrees=True).as_matrix()
        camera[:3, :3] = rotation @ facing
    still = replace(track, head_to_camera=cameras, rotations=np.zeros((5, 5, 3), np.float32))
    np.testing.assert_allclose(head_angles(still), angles, atol=1e-3)
    by_neck = np.zeros((5, 5, 3), np.float32)
    by_neck[1, 1, 1] = np.radians(30)
    nodding = replace(still, head_to_camera=np.tile(cameras[0], (5, 1, 1)), rotations=by_neck)
    np.testing.assert_allclose(head_angles(nodding)[1], [30, 0, 0], atol=1e-3)


def test_frames_outside_the_training_pose_range_are_scored_separately(small):
    _, track, _ = small
    rotations = np.zeros_like(track.rotations)
    rotations[:, 1, 1] = np.radians(np.linspace(-20, 20, 30))
    turning = replace(track, rotations=rotations)
    outside = outside_training(turning, np.arange(5, 25), np.array([0, 4, 10, 25, 29]))
    assert outside.tolist() == [True, True, False, True, True]
    slightly = rotations.copy()
    slightly[29] = rotations[24]
    slightly[29, 1, 1] += np.radians(0.5)
    assert not outside_training(replace(track, rotations=slightly), np.arange(5, 25), np.array([29]))[0]


def test_a_folder_with_a_captures_frames_is_never_replaced(small):
    capture, _, model = small
    before = sorted(p.name for p in (capture.folder / "frames").iterdir())
    with pytest.raises(EffigyError, match="--out"):
        evaluate(BallAvatar(model), capture, capture.folder)
    assert sorted(p.name for p in (capture.folder / "frames").iterdir()) == before


def test_a_cancelled_evaluation_leaves_nothing(small, tmp_path):
    class Impatient(Progress):
        def cancelled(self) -> bool:
            return True

    capture, _, model = small
    with pytest.raises(Cancelled):
        evaluate(BallAvatar(model), capture, tmp_path / "out", progress=Impatient())
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_an_avatar_of_another_head_is_refused(small, tmp_path):
    capture, _, model = small
    with pytest.raises(EffigyError):
        evaluate(BallAvatar(replace(model, template=model.template * 1.01)), capture, tmp_path / "out")


def test_jitter_measures_trembling_and_not_drift():
    steps = np.arange(10.0)[:, None, None] * [3.0, -2.0]
    drift = np.broadcast_to(steps, (10, 68, 2)).copy()
    assert mean_jitter(drift) == pytest.approx(0, abs=1e-9)
    drift[::2] += [0, 0.5]
    assert mean_jitter(drift) == pytest.approx(1.0)
    drift[4] = np.nan
    assert mean_jitter(drift) == pytest.approx(1.0)
    assert mean_jitter(np.full((5, 68, 2), np.nan)) is None


def test_holding_the_expression_keeps_only_the_head_poses(small):
    track = small[1]
    still = hold_expression(track, np.arange(10, 20))
    assert np.ptp(still.expression, axis=0).max() == 0 and np.ptp(still.rotations[:, 2:], axis=0).max() == 0
    assert np.array_equal(still.rotations[:, 1], track.rotations[:, 1])
    assert np.array_equal(still.head_to_camera, track.head_to_camera)


def test_frames_tracked_by_the_avatar_are_scored_beside_those_as_tracked(small, tmp_path):
    """The head of each held-out frame is rotated by two degrees and moved by 3 mm."""
    capture, track, model = small
    cameras = track.head_to_camera.copy()
    held_out = slice(capture.training_count, None)
    cameras[held_out, :3, :3] = cameras[held_out, :3, :3] @ Rotation.from_rotvec([0, np.radians(2), 0]).as_matrix()
    cameras[held_out, 0, 3] += 0.003
    save_track(replace(track, head_to_camera=cameras), capture.folder / "track.npz")
    try:
        metrics = evaluate(true_avatar(model, track), capture, tmp_path / "out", retrack=True)
    finally:
        save_track(track, capture.folder / "track.npz")
    assert metrics.refitted.psnr > metrics.mean.psnr + 3
    assert "tracked by avatar" in str(metrics)


@pytest.mark.parametrize(
    ("metrics", "given", "minutes"), [({}, None, 5), ({"training_seconds": 90.0}, None, 1.5), ({}, 0.25, 0.25)]
)
def test_the_baseline_is_trained_as_long_as_the_avatar_was(small, tmp_path, monkeypatch, metrics, given, minutes):
    capture, track, model = small
    avatar, asked = BallAvatar(model), []
    avatar.metrics = metrics

    def train_baseline(*_, **options):
        asked.append((options["minutes"], options["size"]))
        raise Cancelled("enough")

    monkeypatch.setattr(evaluation, "train_baseline", train_baseline)
    with pytest.raises(Cancelled):
        evaluate(avatar, capture, tmp_path / "out", baselines=True, baseline_minutes=given)
    assert asked == [(minutes, SIZE)]
