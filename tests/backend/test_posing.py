"""From Blender's pose to splats, without a worker: what a pose, a camera and an export may be, and what they mean."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from worker_sessions import untrained_avatar

from backend.avatar.avatar import Avatar, load_avatar
from backend.errors import EffigyError
from backend.head.formats import load_head
from backend.head.jaw import jaw_rotations_of_shapes
from backend.head.model import EYE_L, EYE_R, JAW, NECK, HeadModel
from backend.head.rotations import axis_angle_to_matrix, quaternion_to_matrix
from backend.service import posing
from backend.service.open_avatars import OpenAvatars
from backend.service.parameters import Parameters
from backend.service.posing import (
    MAX_IMAGE_SIZE,
    ORTHOGRAPHIC_DISTANCE,
    Posing,
    SubjectPose,
    View,
    concatenate,
    draw,
    draw_with_holdouts,
    eye_in_direction,
    posed_splats,
    read_camera,
    read_pose,
    rotate,
)
from backend.splatting.ply import write_splats
from backend.splatting.types import Splats

CAMERA: dict[str, Any] = {
    "world_to_camera": np.diag([1.0, -1, -1, 1]),
    "intrinsics": np.array([[90.0, 0, 8], [0, 80, 6], [0, 0, 1]]),
    "width": 16,
    "height": 12,
}


def rotation_of(*axis_angle: float) -> np.ndarray:
    return axis_angle_to_matrix(torch.tensor(axis_angle, dtype=torch.float64)).numpy()


def root_of(matrix: np.ndarray, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    root = np.eye(4)
    root[:3, :3], root[:3, 3] = matrix, at
    return root


def parameters(values: dict[str, Any]) -> Parameters:
    return Parameters(values, "avatar.splats")


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head()


@pytest.fixture(scope="module")
def avatar_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_avatar(tmp_path_factory.mktemp("avatar") / "person.effigy")


@pytest.fixture(scope="module")
def avatar(avatar_path: Path) -> Avatar:
    return load_avatar(avatar_path)


def splats_at(*places: tuple[float, float, float], alpha: float = 0.9, size: float = 0.02) -> Splats:
    count = len(places)
    return Splats(
        torch.tensor(places, dtype=torch.float32)[None],
        torch.tensor([[[1.0, 0, 0, 0]]]).expand(1, count, 4),
        torch.full((1, count, 3), size),
        torch.full((1, count), alpha),
        torch.ones(1, count, 3),
    )


# --- poses


def test_a_pose_that_says_nothing_is_at_rest(model: HeadModel) -> None:
    pose = read_pose(parameters({}), model)
    assert pose.expression.shape == (52,) and not pose.expression.any()
    assert pose.rotations.shape == (5, 3) and not pose.rotations.any()
    assert np.array_equal(pose.rotation, np.eye(3)) and not pose.translation.any() and pose.scale == 1


def test_each_joint_gets_its_own_rotation_and_jaw_sliders_are_added_to_the_jaw(model: HeadModel) -> None:
    expression = np.zeros(52)
    jaw_shapes = {"jawOpen": 0.5, "jawLeft": 0.25, "jawRight": 0.125}
    for name, value in {**jaw_shapes, "mouthPucker": 0.75}.items():
        expression[model.expression_names.index(name)] = value
    joints = {"neck": [0.1, 0, 0], "jaw": [0, 0.2, 0], "eye_L": [0, 0, 0.3], "eye_R": [0.4, 0, 0]}
    given = expression.copy()
    pose = read_pose(parameters({"expression": expression, **joints}), model)
    assert np.array_equal(expression, given), "the request's own array is left as it is"
    by_shape = jaw_rotations_of_shapes(model)
    jaw = np.array(joints["jaw"]) + sum(value * by_shape[name] for name, value in jaw_shapes.items())
    assert not pose.rotations[0].any() and pose.rotations[JAW] == pytest.approx(jaw)
    for joint, name in ((NECK, "neck"), (EYE_L, "eye_L"), (EYE_R, "eye_R")):
        assert pose.rotations[joint].tolist() == joints[name]
    assert [model.expression_names[index] for index in np.flatnonzero(pose.expression)] == ["mouthPucker"]
    assert pose.expression.max() == 0.75


def test_a_root_is_taken_apart_into_rotation_scale_and_place(model: HeadModel) -> None:
    turn = rotation_of(0.4, -1.1, 0.3)
    pose = read_pose(parameters({"root": root_of(2.5 * turn, (1, 2, 3))}), model)
    assert pose.scale == pytest.approx(2.5) and pose.rotation == pytest.approx(turn)
    assert pose.translation.tolist() == [1, 2, 3]
    place = np.array([0.1, -0.2, 0.3])
    assert pose.to_head(2.5 * turn @ place + (1, 2, 3)) == pytest.approx(place)


@pytest.mark.parametrize(
    ("matrix", "accepted"),
    [
        (np.diag([1.0005, 1, 1]), True),
        (np.diag([1.01, 1, 1]), False),
        (np.array([[1, 0.0005, 0], [0, 1, 0], [0, 0, 1]]), True),
        (np.array([[1, 0.01, 0], [0, 1, 0], [0, 0, 1]]), False),
        (0.001 * np.eye(3), True),
        (np.zeros((3, 3)), False),
        (-np.eye(3), False),
        (1e-7 * np.eye(3), False),
    ],
)
def test_rounding_of_a_root_is_accepted_and_a_visible_squeeze_is_not(
    model: HeadModel, matrix: np.ndarray, accepted: bool
) -> None:
    request = parameters({"root": root_of(matrix)})
    if accepted:
        assert read_pose(request, model).scale == pytest.approx(np.cbrt(np.linalg.det(matrix)))
        return
    with pytest.raises(EffigyError, match="mirrored, sheared or scaled unevenly"):
        read_pose(request, model)


def test_a_heads_splats_follow_its_root_and_are_those_of_its_networks(avatar: Avatar) -> None:
    random = np.random.default_rng(0)
    expression, rotations = random.uniform(0, 0.5, 52), random.normal(0, 0.1, (5, 3))
    rotations[0] = 0
    eye = np.array([0.2, 0.1, 0.7])
    still = SubjectPose(expression, rotations, np.eye(3), np.zeros(3), 1.0)
    turn = rotation_of(0.4, -1.1, 0.3)
    here, there = (
        posed_splats(avatar, pose, eye)
        for pose in (still, SubjectPose(expression, rotations, turn, np.array([1.0, 2, 3]), 2.5))
    )
    np.testing.assert_allclose(there.means[0], 2.5 * here.means[0].numpy() @ turn.T + (1, 2, 3), atol=1e-5)
    np.testing.assert_allclose(there.scales, 2.5 * here.scales, rtol=1e-6)
    np.testing.assert_allclose(
        quaternion_to_matrix(there.quaternions), turn @ quaternion_to_matrix(here.quaternions).numpy(), atol=1e-5
    )
    assert torch.allclose(there.quaternions.norm(dim=-1), torch.ones(1), atol=1e-6)
    assert torch.equal(there.colors, here.colors) and torch.equal(there.opacities, here.opacities)
    camera = np.eye(4)
    camera[:3, :3] = rotation_of(0, 2.0, 0)
    camera[:3, 3] = -camera[:3, :3] @ eye
    with torch.inference_mode():
        inputs = (torch.as_tensor(part, dtype=torch.float32)[None] for part in (expression, rotations, camera))
        expected = avatar.networks(avatar.pose(*inputs))[0]
    np.testing.assert_allclose(here.means, expected.means, atol=1e-6)
    np.testing.assert_allclose(here.colors, expected.colors, atol=1e-4)
    anchors = posed_splats(avatar, still, eye, anchors_only=True)
    count = anchors.means.shape[1]
    assert count == len(avatar.head_model.template) < here.means.shape[1]
    np.testing.assert_allclose(anchors.means, here.means[:, :count], atol=1e-6)


# --- cameras


def test_a_distant_camera_stands_behind_the_eyes_against_its_direction(avatar: Avatar) -> None:
    pose = SubjectPose(np.zeros(52), np.zeros((5, 3)), rotation_of(0, 0.5, 0), np.array([1.0, 2, 3]), 2.0)
    direction = np.array([0.0, 0, -3])
    eye = eye_in_direction(avatar, pose, direction)
    eyes = avatar.shaped.joints[0, [EYE_L, EYE_R]].mean(0).numpy()
    assert np.linalg.norm(eye - eyes) == pytest.approx(ORTHOGRAPHIC_DISTANCE)
    in_world = pose.rotation @ (eye - eyes)
    assert in_world == pytest.approx((0, 0, ORTHOGRAPHIC_DISTANCE), abs=1e-4)


def test_splats_are_seen_from_a_view_or_a_direction(avatar_path: Path) -> None:
    worker = Posing()
    base = {"avatar": str(avatar_path), "pose": {}}
    far = worker.splats(parameters(base | {"view": [0, 0, ORTHOGRAPHIC_DISTANCE]}))
    for direction in ([0, 0, -1], [0, 0, -0.25]):
        seen = worker.splats(parameters(base | {"direction": direction}))
        assert np.abs(seen["colors"] - far["colors"]).max() < 2e-3
    near = worker.splats(parameters(base | {"view": [0.3, 0, 0.3]}))
    assert np.abs(near["colors"] - far["colors"]).max() > 5e-3
    assert set(far) == {"means", "quaternions", "scales", "opacities", "colors"} and far["means"].ndim == 2
    with pytest.raises(EffigyError, match=r"avatar\.splats: direction has no length"):
        worker.splats(parameters(base | {"direction": [0, 0, 0]}))


def test_a_camera_is_read_as_it_is_given() -> None:
    view = read_camera(parameters(CAMERA))
    assert (view.width, view.height, view.orthographic) == (16, 12, False)
    assert np.array_equal(view.intrinsics, CAMERA["intrinsics"])
    assert np.array_equal(view.world_to_camera, CAMERA["world_to_camera"])
    assert read_camera(parameters(CAMERA | {"orthographic": True})).orthographic


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"width": MAX_IMAGE_SIZE + 1}, "width is 16385, but must lie between 1 and 16384"),
        ({"height": MAX_IMAGE_SIZE + 1}, "height is 16385"),
        ({"world_to_camera": np.diag([1.01, 1, 1, 1])}, "scaled or mirrored"),
        ({"world_to_camera": np.diag([-1.0, 1, 1, 1])}, "scaled or mirrored"),
        ({"intrinsics": np.array([[90.0, 0, 8], [0, 0, 6], [0, 0, 1]])}, "focal length must be above zero"),
        ({"width": MAX_IMAGE_SIZE, "height": 1}, None),
        ({"world_to_camera": np.diag([1.0005, 1, 1, 1])}, None),
    ],
)
def test_a_camera_may_be_as_large_as_the_largest_image(change: dict[str, Any], sentence: str | None) -> None:
    if sentence is None:
        read_camera(parameters(CAMERA | change))
        return
    with pytest.raises(EffigyError, match=sentence):
        read_camera(parameters(CAMERA | change))


def test_the_camera_of_a_head_is_its_position_or_its_direction(avatar: Avatar) -> None:
    pose = SubjectPose(np.zeros(52), np.zeros((5, 3)), rotation_of(0.2, 0, 0), np.array([0.5, 0, 0]), 2.0)
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([1.0, -1, -1]) @ rotation_of(0, 0.3, 0)
    matrix[:3, 3] = -matrix[:3, :3] @ (0.2, 0.1, 2.0)
    view = View(matrix, CAMERA["intrinsics"], False, 16, 12)
    assert view.eye_of(avatar, pose) == pytest.approx(pose.to_head(np.array([0.2, 0.1, 2.0])))
    flat = View(matrix, CAMERA["intrinsics"], True, 16, 12)
    assert flat.eye_of(avatar, pose) == pytest.approx(eye_in_direction(avatar, pose, matrix[2, :3]))


# --- images and files


def view_of(distance: float, orthographic: bool, focal: float) -> View:
    matrix = np.diag([1.0, -1, -1, 1])
    matrix[2, 3] = distance
    return View(matrix, np.array([[focal, 0, 16], [0, focal, 12], [0, 0, 1]]), orthographic, 32, 24)


def test_a_very_deep_subject_is_orthographic_too() -> None:
    near, far = (-0.1, 0.05, 0.0), (0.1, -0.05, -30.0)
    image = draw([splats_at(near, far, size=0.01)], view_of(2.0, True, 100.0))
    rows, columns = np.mgrid[:24, :32] + 0.5
    for place in (near, far):
        beside = np.hypot(columns - 16 - 100 * place[0], rows - 12 + 100 * place[1]) < 4
        weight = image.alpha * beside
        assert (weight * columns).sum() / weight.sum() == pytest.approx(16 + 100 * place[0], abs=0.05)
        assert (weight * rows).sum() / weight.sum() == pytest.approx(12 - 100 * place[1], abs=0.05)
        assert np.abs(image.depth[beside & (image.alpha > 0.5)] - (2.0 - place[2])).max() < 5e-3
    assert not draw([splats_at((0, 0, 3.0))], view_of(2.0, True, 100.0)).alpha.any(), "all is behind the camera"
    with_one_behind = draw([splats_at(near, (0.1, 0.05, 3.0), size=0.01)], view_of(2.0, True, 100.0))
    alone = draw([splats_at(near, size=0.01)], view_of(2.0, True, 100.0))
    np.testing.assert_array_equal(with_one_behind.alpha, alone.alpha)
    np.testing.assert_array_equal(with_one_behind.depth, alone.depth)


def test_heads_are_drawn_with_their_enhancers_and_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def enhance(raster: Any, splats: Splats, cameras: Any, *rest: Any) -> Any:
        given.extend(rest)
        return raster

    monkeypatch.setattr(posing, "enhance_joint_image", enhance)
    heads, view = [splats_at((0, 0, 0), (0.1, 0, 0)), splats_at((0, 0.1, 0))], view_of(1.0, False, 30.0)
    plain = draw(heads, view)
    assert not given
    enhancers: list[Any] = [None, SimpleNamespace()]
    assert np.array_equal(draw(heads, view, enhancers).color, plain.color)
    assert given == [[2, 1], enhancers, [1.0, 1.0]]
    given.clear()
    draw(heads, view, enhancers, [1.0, 2.5])
    assert given[2] == [1.0, 2.5]


@pytest.mark.parametrize("enhanced", [None, True, False])
def test_an_image_is_enhanced_unless_it_is_asked_for_plain(
    avatar: Avatar, avatar_path: Path, monkeypatch: pytest.MonkeyPatch, enhanced: bool | None
) -> None:
    given: list[Any] = []
    enhancer = SimpleNamespace()
    frame = draw([], view_of(1.0, False, 30.0))
    monkeypatch.setattr(
        posing, "draw_with_holdouts", lambda *arguments: (given.append(arguments), (frame, frame.alpha))[1]
    )
    monkeypatch.setattr(Avatar, "enhancer", enhancer)
    monkeypatch.setattr(OpenAvatars, "get", lambda *_: avatar)
    subject = {"avatar": str(avatar_path), "pose": {"root": root_of(1.5 * np.eye(3))}}
    request = {"subjects": [subject, subject], "camera": CAMERA} | ({} if enhanced is None else {"enhanced": enhanced})
    assert "hole" not in Posing().render(parameters(request))
    ((heads, holdouts, view, enhancers, scales),) = given
    assert holdouts == [False, False]
    assert len(heads) == 2 and view.width == 16 and scales == pytest.approx([1.5, 1.5])
    assert enhancers == ([None, None] if enhanced is False else [enhancer, enhancer])
    subject["holdout"] = True
    assert "hole" in Posing().render(parameters(request))
    assert given[1][1] == [True, True] and given[1][3] == [None, None]


@pytest.mark.parametrize("orthographic", [False, True])
def test_a_holdout_takes_its_share_of_what_is_behind_it_and_shows_nothing(orthographic: bool) -> None:
    view = view_of(1.0, orthographic, 100.0 if orthographic else 30.0)
    back, front = splats_at((0, 0, -0.1), alpha=0.8), splats_at((0, 0, 0.1), alpha=0.5)
    alone, both = draw([back], view), draw([back, front], view)
    frame, hole = draw_with_holdouts([back, front], [False, True], view)
    np.testing.assert_allclose(hole + frame.alpha, both.alpha, atol=1e-5)
    middle = 12, 16
    assert 0.3 < hole[middle] < 0.5
    assert frame.alpha[middle] == pytest.approx((1 - hole[middle]) * alone.alpha[middle], abs=0.01)
    np.testing.assert_allclose(frame.color, np.repeat(frame.alpha[..., None], 3, -1), atol=1e-5)
    assert frame.depth[middle] == pytest.approx(alone.depth[middle], abs=1e-3) == pytest.approx(1.1, abs=0.01)
    behind, hole = draw_with_holdouts([back, front], [True, False], view)
    np.testing.assert_allclose(behind.alpha, draw([front], view).alpha, atol=1e-3)
    assert 0.2 < hole[middle] < 0.5 and np.isinf(draw_with_holdouts([back], [True], view)[0].depth).all()


def test_splats_are_turned_about_the_worlds_origin_and_joined_in_order() -> None:
    first, second = splats_at((1, 0, 0)), splats_at((0, 2, 0), (0, 0, 3), alpha=0.5)
    joined = concatenate([first, second])
    assert joined.means[0].tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 3]]
    assert joined.opacities[0].tolist() == pytest.approx([0.9, 0.5, 0.5])
    turned = rotate(joined, rotation_of(0, 0, np.pi / 2))
    assert turned.means[0].numpy() == pytest.approx(np.array([(0, 1, 0), (-2, 0, 0), (0, 0, 3)]), abs=1e-6)
    assert turned.quaternions[0, 0].abs().tolist() == pytest.approx([np.sqrt(0.5), 0, 0, np.sqrt(0.5)], abs=1e-6)
    assert torch.equal(turned.scales, joined.scales)


def test_an_export_holds_all_heads_in_the_axes_of_the_file(
    avatar_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Splats] = []
    counts: list[int] = []

    def write(path: Path, splats: Splats) -> int:
        written.append(splats)
        counts.append(write_splats(path, splats))
        return counts[-1]

    monkeypatch.setattr(posing, "write_splats", write)
    axes = rotation_of(-np.pi / 2, 0, 0)
    subjects = [{"avatar": str(avatar_path), "pose": {"root": root_of(np.eye(3), at)}} for at in ((0, 0, 0), (0, 0, 5))]
    request = {"subjects": subjects, "view": [0, 0, 1], "path": str(tmp_path / "a.ply")}
    for given in ({}, {"axes": axes}):
        answer = Posing().export(parameters(request | given))
        assert answer == {"gaussians": counts[-1]} and counts[-1] > 20_000
        assert (tmp_path / "a.ply").stat().st_size > 4 * counts[-1]
    plain, turned = (each.means[0].numpy() for each in written)
    assert np.abs(plain @ axes.T - turned).max() < 1e-5
    half = len(plain) // 2
    assert np.abs(plain[half:].mean(0) - plain[:half].mean(0) - (0, 0, 5)).max() < 0.01
    with pytest.raises(EffigyError, match="axes must be a rotation"):
        Posing().export(parameters(request | {"axes": axes * 1.002}))


def test_an_avatar_is_described_by_its_file(avatar_path: Path, avatar: Avatar, tmp_path: Path) -> None:
    worker = Posing()
    answer = worker.open(parameters({"path": str(avatar_path)}))
    info = answer["info"]
    assert answer["avatar"] == str(avatar_path) and info.name == "person"
    assert (info.head_name, info.head_fingerprint) == (avatar.head_model.name, avatar.head_model.fingerprint)
    assert np.array_equal(info.identity, avatar.identity) and info.settings == avatar.settings.to_dict()
    assert info.gaussians == avatar.gaussian_count > 5000 and info.megabytes == avatar.megabytes > 0.1
    assert info.size == avatar.settings.size and info.metrics == avatar.metrics
    assert info.device.partition(":")[0] in ("cpu", "cuda")
    copy = tmp_path / "copy.effigy"
    copy.write_bytes(avatar_path.read_bytes())
    opened = OpenAvatars()
    kept = opened.get(copy)
    copy.unlink()
    assert opened.get(copy) is kept
    with pytest.raises(EffigyError, match="There is no avatar"):
        opened.describe(copy)
    with pytest.raises(EffigyError, match="There is no avatar"):
        opened.get(copy)
