"""The bust: how a track follows the torso, what training makes below the neck, and what its file holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from head_models import ball_head
from shoulders import SHIFTS, make_shoulders
from small_capture import true_avatar

from backend.avatar.avatar import Avatar, build_networks, load_avatar, save_avatar
from backend.avatar.bust import Bust, bust_from
from backend.avatar.render import Frame, draw
from backend.avatar.settings import AvatarSettings
from backend.errors import EffigyError
from backend.formats.capture import Capture, load_capture, read_body_matte, read_head_matte, read_matte
from backend.formats.track import Track, load_track, save_track
from backend.head.bust_surface import bust_surface
from backend.head.formats import save_head
from backend.head.registry import remember_head
from backend.head.rotations import axis_angle_to_matrix, quaternion_to_matrix
from backend.progress import SILENT, Progress
from backend.reading import Damaged
from backend.service.parameters import Parameters
from backend.service.posing import Posing
from backend.tracking.after.head_matte import make_head_mattes
from backend.tracking.after.torso import with_torso
from backend.training.bust import train_bust
from backend.training.evaluation import evaluate
from backend.training.frame_scores import score_frames
from backend.training.frames import person_matte
from backend.training.hanging_hair import hanging_hair
from backend.training.metrics import ImageMetrics
from backend.training.presets import Preset
from backend.training.trainer import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shoulders(tmp_path_factory: pytest.TempPathFactory):
    capture, track, model = make_shoulders(tmp_path_factory.mktemp("shoulders"))
    return capture, with_torso(capture, track, model), model


@pytest.fixture(scope="module")
def avatar(shoulders) -> Avatar:
    capture, track, model = shoulders
    avatar = true_avatar(model, track)
    avatar.settings = replace(avatar.settings, size=96)
    avatar.bust = train_bust(avatar, capture, track, steps=40)
    return avatar


def some_bust(count: int = 5) -> Bust:
    random = torch.Generator().manual_seed(1)

    def numbers(*size: int) -> torch.Tensor:
        return torch.rand((count, *size), generator=random)

    return Bust(numbers(3), 0.01 * numbers(3), numbers(4), numbers(), numbers(3), numbers(3).softmax(1))


def test_a_sliding_torso_is_followed_while_the_head_stays(shoulders):
    capture, track, model = shoulders
    point = bust_surface(model, track.identity).points(np.zeros(1), np.full(1, -0.05))[0]
    seen = track.torso_to_camera.astype(np.float64) @ np.append(point, 1)
    columns = track.intrinsics[0, 0] * seen[:, 0] / seen[:, 2]
    assert (columns - columns[0]) == pytest.approx(SHIFTS - SHIFTS[0], abs=0.25)


def test_held_out_frames_do_not_change_where_the_torso_is_in_training_frames(shoulders, tmp_path: Path):
    capture, track, model = make_shoulders(tmp_path)
    for index in range(track.training_count, track.frame_count):
        cv2.imwrite(str(capture.frame_path(index)), np.zeros((capture.size, capture.size, 3), np.uint8))
    count = track.training_count
    assert np.array_equal(
        with_torso(capture, track, model).torso_to_camera[:count], shoulders[1].torso_to_camera[:count]
    )


def test_footage_without_shoulders_has_no_torso(shoulders, tmp_path: Path):
    capture, track, model = make_shoulders(tmp_path)
    for index in range(track.frame_count):
        cv2.imwrite(str(capture.body_matte_path(index)), np.zeros((capture.size, capture.size), np.uint8))
    assert with_torso(capture, shoulders[1], model).torso_to_camera is None


def test_head_and_body_mattes_add_up_to_the_person(tmp_path: Path):
    capture, track, model = make_shoulders(tmp_path)
    make_head_mattes(capture, track, model)
    capture = load_capture(capture.folder)
    for index in (0, 5):
        head, body, person = (
            read(capture, index).astype(int) for read in (read_head_matte, read_body_matte, read_matte)
        )
        # What belongs to the room is in neither.
        assert (head + body <= person).all() and np.abs(head + body - person).mean() < 1
        assert body[-5].min() > 200 and head[-5].max() < 50 < head[20:100].max()


def test_the_torso_of_a_track_is_kept_and_must_move_rigidly(shoulders, tmp_path: Path):
    track = shoulders[1]
    save_track(track, tmp_path / "track.npz")
    assert np.array_equal(load_track(tmp_path / "track.npz").torso_to_camera, track.torso_to_camera)
    save_track(replace(track, torso_to_camera=2 * track.torso_to_camera), tmp_path / "track.npz")
    with pytest.raises(EffigyError, match="torso_to_camera holds matrices that do not move a torso rigidly"):
        load_track(tmp_path / "track.npz")


def test_a_bust_follows_the_joints_by_its_weights():
    bust = replace(some_bust(3), weights=torch.eye(3))
    joints, rotations = torch.rand(5, 3), torch.zeros(1, 5, 3)
    rotations[0, 1] = torch.tensor((0.0, 0.5, 0.0))
    torso = torch.eye(4)[None].clone()
    torso[0, :3, :3] = axis_angle_to_matrix(torch.tensor((0.3, 0.0, 0.0)))
    torso[0, :3, 3] = torch.tensor((0.1, 0.0, 0.0))
    posed = bust.posed(rotations, joints, torso)
    turn = axis_angle_to_matrix(rotations[0, 1])
    expected = [
        bust.means[0],
        turn @ (bust.means[1] - joints[1]) + joints[1],
        torso[0, :3, :3] @ bust.means[2] + torso[0, :3, 3],
    ]
    assert torch.allclose(posed.means[0], torch.stack(expected), atol=1e-6)
    own = quaternion_to_matrix(torch.nn.functional.normalize(bust.quaternions, dim=-1))
    assert torch.allclose(quaternion_to_matrix(posed.quaternions[0])[2], torso[0, :3, :3] @ own[2], atol=1e-5)


def scores_of_the_person(avatar: Avatar, capture: Capture, track: Track, indices: np.ndarray) -> list[ImageMetrics]:
    def render(index: int) -> Frame:
        return draw(avatar, track, [index], 96)[0]

    return score_frames(render, capture, indices, 96, SILENT, matte_of=person_matte)


def test_a_bust_makes_the_whole_person_and_leaves_the_head_as_it_was(shoulders, avatar):
    capture, track, _ = shoulders
    held_out = np.arange(track.training_count, track.frame_count)
    alone, whole = (
        np.mean([metrics.psnr_head for metrics in scores_of_the_person(each, capture, track, held_out)])
        for each in (avatar.without_bust(), avatar)
    )
    assert whole > alone + 5 and whole > 18
    head, both = avatar.without_bust().splats(track, [0]), avatar.splats(track, [0])
    assert torch.equal(both.means[:, : head.means.shape[1]], head.means)
    assert both.means.shape[1] == head.means.shape[1] + len(avatar.bust)


def test_an_evaluation_scores_the_head_alone_and_the_whole_person_beside_it(shoulders, avatar, tmp_path: Path):
    capture, track, _ = shoulders
    save_track(track, capture.folder / "track.npz")
    with_bust, alone = (evaluate(each, capture, tmp_path) for each in (avatar, avatar.without_bust()))
    assert with_bust.mean == alone.mean and alone.with_bust is None
    assert with_bust.with_bust.psnr_head > 18


def long_haired() -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float]]:
    """Image, head matte, body matte and neck: dark hair at the left of a bright neck, cut at row 40, falls down to row
    60 onto a red shirt; at the right the shirt alone.
    """
    image = np.full((96, 96, 3), (200, 160, 140), np.uint8)
    image[40:, :] = (170, 40, 50)
    image[:60, 10:26] = (40, 30, 25)
    head, body = np.zeros((96, 96), np.uint8), np.zeros((96, 96), np.uint8)
    head[10:40, 10:66] = 255
    body[40:] = 255
    return image, head, body, (30.0, 64.0)


def test_hair_that_falls_on_the_shoulders_is_told_from_the_shirt():
    hair = hanging_hair(*long_haired())
    assert hair[42:57, 12:24].all() and not hair[64:].any() and not hair[:, 30:].any()


def test_nothing_hangs_from_a_neck():
    image, head, body, _ = long_haired()
    assert not hanging_hair(image, head, body, (5.0, 70.0)).any()


def test_a_bust_moves_with_the_torso_of_the_track(shoulders, avatar):
    track = shoulders[1]
    left, right = (draw(avatar, track, [int(index)], 96)[0].alpha[-6:] for index in (SHIFTS.argmin(), SHIFTS.argmax()))
    bust = avatar.splats(track, (int(SHIFTS.argmin()), int(SHIFTS.argmax()))).means[:, -len(avatar.bust) :]
    moved = (bust[1] - bust[0]).mean(0)
    assert moved[0] == pytest.approx(8 * 0.6 / 420, rel=0.3) and left.mean() > 0.8 and right.mean() > 0.8


def test_an_avatar_file_keeps_its_bust(tmp_path: Path):
    model = ball_head()
    settings = AvatarSettings(size=64, blendshapes=2, feature_size=4, neural_width=4, filters=2)
    identity = np.zeros(model.shape_basis.shape[2], np.float32)
    networks = build_networks(settings, model, identity)
    save_avatar(Avatar(networks, model, identity, settings, bust=some_bust()), tmp_path / "a.effigy")
    found = load_avatar(tmp_path / "a.effigy", model)
    for name, part in vars(some_bust()).items():
        assert torch.allclose(getattr(found.bust, name), part, atol=1e-3), name
    save_avatar(found.without_bust(), tmp_path / "a.effigy")
    assert load_avatar(tmp_path / "a.effigy", model).bust is None


@pytest.mark.parametrize("head_only", [False, True])
def test_training_adds_a_bust_unless_the_head_alone_is_asked_for(shoulders, tmp_path: Path, head_only: bool):
    capture, track, model = shoulders
    save_track(track, capture.folder / "track.npz")
    plan = Preset(size=64, warmup_steps=1, steps=1, batch=2, refinement=False, fewest_frames=4, bust_steps=2)
    train(capture.folder, tmp_path / "a.effigy", plan=plan, head_only=head_only, device="cpu")
    assert (load_avatar(tmp_path / "a.effigy", model).bust is None) == head_only


def test_a_bust_ends_with_its_time(shoulders):
    capture, track, model = shoulders
    avatar, seconds = true_avatar(model, track), iter(range(0, 10_000, 10))
    avatar.settings, reported = replace(avatar.settings, size=48), []

    class Reported(Progress):
        def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
            reported.append((stage, done))

    train_bust(avatar, capture, track, steps=50, minutes=0.5, clock=lambda: next(seconds), progress=Reported())
    assert reported[-1] == ("Bust", 2), "the clock goes on by 10 seconds a step"


def test_an_enhancer_and_its_parts_see_the_head_as_without_the_bust(tmp_path: Path):
    """The bust lies far to the side, so that head and bust share no pixel."""
    model = ball_head()
    settings = AvatarSettings(size=64, blendshapes=2, feature_size=4, neural_width=4, filters=2, enhancer_width=4)
    identity = np.zeros(model.shape_basis.shape[2], np.float32)
    networks = build_networks(settings, model, identity)
    torch.nn.init.normal_(networks.enhancer.out.weight, std=0.3)
    bust = replace(some_bust(), means=torch.tensor([[0.3, 0.0, 0.0]]).repeat(5, 1), opacities=torch.full((5,), 0.9))
    path = tmp_path / "a.effigy"
    save_head(model, tmp_path / "ball.npz")
    remember_head(model, tmp_path / "ball.npz")
    save_avatar(Avatar(networks, model, identity, settings, bust=bust), path)
    camera = {
        "world_to_camera": np.diag([1.0, -1, -1, 1]),
        "intrinsics": np.array([[90.0, 0, 32], [0, 90, 16], [0, 0, 1]]),
    }
    camera["world_to_camera"][2, 3] = 1.0
    request = {"camera": camera | {"width": 96, "height": 32, "orthographic": False}, "parts": 1}
    subject = {"avatar": str(path), "labels": np.zeros(len(model.template))}
    worker = Posing()
    frames = {
        shown: worker.render(Parameters(request | {"subjects": [subject | {"pose": pose}]}, "avatar.render"))
        for shown, pose in ((True, {"torso": np.eye(4)}), (False, {}))
    }
    enhanced = worker.render(Parameters(request | {"subjects": [subject | {"pose": {}}], "enhanced": False}, "test"))
    head, side = np.s_[:, :48], np.s_[:, 52:]
    assert np.abs(frames[False]["color"] - enhanced["color"]).max() > 0.02
    assert np.allclose(frames[True]["color"][head], frames[False]["color"][head], atol=1e-4)
    assert frames[True]["alpha"][side].max() > 0.5 and frames[False]["alpha"][side].max() < 0.01
    assert np.allclose(frames[True]["parts"][..., 0], frames[True]["alpha"], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda parts: parts.pop("baked.bust_means"), "incomplete"),
        (lambda parts: parts.update({"baked.bust_colors": torch.zeros(5, 4)}), "do not fit"),
        (lambda parts: parts.update({"baked.bust_opacities": torch.zeros(())}), "do not fit"),
        (lambda parts: parts["baked.bust_scales"].fill_(torch.nan), "not finite"),
    ],
)
def test_a_damaged_bust_gets_a_sentence(change, reason):
    parts = some_bust().tensors()
    change(parts)
    with pytest.raises(Damaged, match=reason):
        bust_from(parts)
