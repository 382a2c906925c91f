"""The worker's answers over a real pipe: the rig's data, splats of a pose, and images of several heads."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from head_models import ball_head
from worker_sessions import make_client, mapped_by, untrained_avatar

from backend.avatar.avatar import load_avatar
from backend.head.formats import load_head
from backend.head.forward import Head
from backend.head.jaw import jaw_rotations_of_shapes
from backend.head.rotations import axis_angle_to_matrix, quaternion_to_matrix
from backend.service.posing import View, draw
from backend.splatting.rasterize import rasterize
from backend.splatting.types import Cameras, Splats
from blender_addon.worker.client import WorkerError

SIZE = 96
CAMERA = {"world_to_camera": np.eye(4), "intrinsics": np.diag([90.0, 90, 1]), "width": 8, "height": 8}
JOINTS = ("neck", "jaw", "eye_L", "eye_R")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    client = make_client(tmp_path_factory.mktemp("user"))
    yield client
    client.close()


@pytest.fixture(scope="module")
def model():
    return load_head()


@pytest.fixture(scope="module")
def avatar_path(tmp_path_factory) -> Path:
    return untrained_avatar(tmp_path_factory.mktemp("avatar") / "person.effigy")


def random_pose(model, seed: int, **root) -> dict:
    random = np.random.default_rng(seed)
    expression = random.uniform(0, 0.5, len(model.expression_names))
    for name in ("jawOpen", "jawLeft", "jawRight"):
        expression[model.expression_names.index(name)] = 0
    return {"expression": expression, "root": root_matrix(**root)} | {
        joint: random.normal(0, 0.15, 3) for joint in JOINTS
    }


def root_matrix(rotation=(0.0, 0.0, 0.0), at=(0.0, 0.0, 0.0), scale=1.0) -> np.ndarray:
    root = np.eye(4)
    root[:3, :3] = scale * axis_angle_to_matrix(torch.tensor(rotation, dtype=torch.float64)).numpy()
    root[:3, 3] = at
    return root


def camera(at=(0.0, 0.0, 0.8), focal=260.0, orthographic=False, width=SIZE, height=SIZE) -> dict:
    """A camera that views the face along the world's -Z."""
    matrix = np.diag([1.0, -1, -1, 1])
    matrix[:3, 3] = -matrix[:3, :3] @ at
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return {
        "world_to_camera": matrix,
        "intrinsics": intrinsics,
        "orthographic": orthographic,
        "width": width,
        "height": height,
    }


def splats_of(answer: dict) -> Splats:
    return Splats(**{name: torch.from_numpy(array.copy())[None] for name, array in answer.items()})


def covariances(answer: dict) -> np.ndarray:
    rotated = quaternion_to_matrix(torch.from_numpy(answer["quaternions"].copy())).numpy() * answer["scales"][:, None]
    return rotated @ rotated.transpose(0, 2, 1)


def no_array_file_left(client) -> bool:
    return not any(list(Path(folder).iterdir()) for folder in client.array_folders)


# --- the rig


def test_the_worker_describes_itself(client):
    info = client.call("hello", {"arrays": "files"})
    assert info["schema"] == 2 and info["torch"] == torch.__version__ and info["pid"] == client.pid
    assert client.array_folders
    assert all((Path(folder).stat().st_mode & 0o077) == 0 for folder in client.array_folders), (
        "other users may read the arrays"
    )


def test_rig_data_posed_as_blender_does_equals_the_backend(client, model):
    """Deltas, correctives and skinning computed here, for random identities, expressions and rotations: within 0.01
    mm.
    """
    random = np.random.default_rng(3)
    for _ in range(3):
        identity = random.normal(0, 1, model.shape_basis.shape[2])
        rig = client.call("head.rig", {"head": {"file": None}, "identity": identity})
        expression, rotations = random.uniform(0, 1, len(rig["expression_names"])), random.normal(0, 0.3, (5, 3))
        joint_rotations = axis_angle_to_matrix(torch.as_tensor(rotations)).numpy()
        features = (joint_rotations[1:] - np.eye(3)).reshape(-1)[rig["pose_corrective_index"]]
        rest = (
            rig["vertices"]
            + np.tensordot(expression, rig["expression_deltas"], 1)
            + np.tensordot(features, rig["pose_corrective_deltas"], 1)
        )
        matrices = []
        for joint, parent in enumerate(rig["joint_parents"]):
            local = np.eye(4)
            local[:3, :3] = joint_rotations[joint]
            local[:3, 3] = rig["joints"][joint] - joint_rotations[joint] @ rig["joints"][joint]
            matrices.append(local if parent < 0 else matrices[parent] @ local)
        moved = np.einsum("vj,jrc,vc->vr", rig["skinning"], np.stack(matrices)[:, :3], np.c_[rest, np.ones(len(rest))])
        parts = (torch.as_tensor(part, dtype=torch.float32)[None] for part in (identity, expression, rotations))
        assert np.abs(moved - Head(model)(*parts).vertices[0].numpy()).max() < 1e-5


def test_identity_deltas_and_joints_follow_another_identity(client):
    plain = client.call("head.rig", {})
    identity = np.random.default_rng(5).normal(0, 1, len(plain["identity"]))
    person = client.call("head.rig", {"identity": identity})
    for name, deltas, most in (("vertices", "identity_deltas", 1e-5), ("joints", "joint_identity", 1e-6)):
        assert np.abs(plain[name] + np.tensordot(identity, plain[deltas], 1) - person[name]).max() < most
    assert np.abs(person["vertices"] - plain["vertices"]).max() > 1e-3


def test_a_head_is_found_by_its_fingerprint(client, model):
    named = {"name": model.name, "fingerprint": model.fingerprint}
    assert client.call("head.rig", {"head": named})["head"] == named
    with pytest.raises(WorkerError, match="needs the head model “lost”"):
        client.call("head.rig", {"head": {"name": "lost", "fingerprint": "0" * 16}})


def test_what_a_users_head_file_lacks_is_reported_and_the_head_is_found_again(client, tmp_path):
    path = tmp_path / "identity_only.npz"
    ball = ball_head(expressions=0)
    np.savez(path, v_template=ball.template, shapedirs=ball.shape_basis, f=ball.faces)
    rig = client.call("head.rig", {"head": {"file": path}})
    assert rig["expression_deltas"].shape == (0, len(ball.template), 3) and "not animated" in rig["messages"][0]
    assert client.call("head.rig", {"head": rig["head"]})["head"] == rig["head"]
    path.write_bytes(b"a shopping list")
    os.utime(path, ns=(1, 1))
    with pytest.raises(WorkerError, match="identity_only.npz is damaged"):
        client.call("head.rig", {"head": {"file": path}})


# --- splats


def test_the_root_transforms_the_splats(client, model, avatar_path):
    """Rotated, moved and three times as large, seen by a camera that is transformed in the same way."""
    eye = np.array([0.1, 0.05, 0.7])
    here = client.call("avatar.splats", {"avatar": avatar_path, "pose": random_pose(model, 1), "view": eye})
    root = root_matrix((0.4, -1.1, 0.3), (2.0, -1.0, 0.5), 3.0)
    pose = random_pose(model, 1) | {"root": root}
    view = root[:3, :3] @ eye + root[:3, 3]
    there = client.call("avatar.splats", {"avatar": avatar_path, "pose": pose, "view": view})
    assert np.abs(here["means"] @ root[:3, :3].T + root[:3, 3] - there["means"]).max() < 1e-5
    rotated = root[:3, :3] @ covariances(here) @ root[:3, :3].T
    assert np.abs(rotated - covariances(there)).max() < 1e-4 * np.abs(rotated).max()
    assert np.abs(np.linalg.norm(there["quaternions"], axis=1) - 1).max() < 1e-5
    assert np.abs(here["colors"] - there["colors"]).max() < 1e-3
    assert np.abs(here["opacities"] - there["opacities"]).max() < 1e-4


def test_anchors_alone_are_the_first_of_all_splats(client, model, avatar_path):
    asked = {"avatar": avatar_path, "pose": random_pose(model, 1), "view": np.array((0.1, 0.05, 0.7))}
    everything, anchors = client.call("avatar.splats", asked), client.call("avatar.splats", asked | {"anchors": True})
    count = len(anchors["means"])
    assert count < len(everything["means"]) and count == len(model.template)
    for name in anchors:
        assert np.abs(anchors[name] - everything[name][:count]).max() < 1e-5


def test_splats_are_those_of_the_avatar_on_a_track(client, model, avatar_path):
    avatar = load_avatar(avatar_path)
    pose = random_pose(model, 2)
    rotations = np.stack([np.zeros(3), *(pose[joint] for joint in JOINTS)])
    view = camera()["world_to_camera"]
    parts = (torch.as_tensor(part, dtype=torch.float32)[None] for part in (pose["expression"], rotations, view))
    with torch.no_grad():
        expected = avatar.networks(avatar.pose(*parts))[0]
    answer = client.call("avatar.splats", {"avatar": avatar_path, "pose": pose, "view": [0, 0, 0.8]})
    assert np.abs(answer["means"] - expected.means[0].numpy()).max() < 1e-6
    assert np.abs(answer["colors"] - expected.colors[0].numpy()).max() < 1e-4


def test_jaw_sliders_rotate_the_jaw_joint(client, model, avatar_path):
    """The slider jawOpen is a rotation that opens the jaw as far, added to the bone's own."""
    slider, bone = random_pose(model, 4), random_pose(model, 4)
    slider["expression"][model.expression_names.index("jawOpen")] = 0.8
    bone["jaw"] = bone["jaw"] + 0.8 * jaw_rotations_of_shapes(model)["jawOpen"]
    by_slider, by_bone, closed = (
        client.call("avatar.splats", {"avatar": avatar_path, "pose": pose, "view": [0, 0, 0.8]})
        for pose in (slider, bone, random_pose(model, 4))
    )
    assert all(np.abs(by_slider[name] - by_bone[name]).max() < 1e-5 for name in by_bone)
    assert np.abs(by_slider["means"] - closed["means"]).max() > 0.01


def test_an_avatar_is_read_again_when_its_file_changed_and_stays_open_without_it(client, tmp_path):
    path = untrained_avatar(tmp_path / "trained.effigy", seed=1)
    request = {"avatar": path, "pose": {}, "view": [0, 0, 1]}
    before = client.call("avatar.splats", request)["means"]
    untrained_avatar(path, seed=2)
    os.utime(path, ns=(1, 1))
    after = client.call("avatar.splats", request)["means"]
    assert np.abs(after - before).max() > 1e-4
    path.unlink()
    assert np.array_equal(client.call("avatar.splats", request)["means"], after)
    with pytest.raises(WorkerError, match="There is no avatar"):
        client.call("avatar.open", {"path": path})


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists what a process has mapped")
def test_an_avatar_that_is_shown_can_be_replaced_on_windows(client, tmp_path):
    path = untrained_avatar(tmp_path / "shown.effigy")
    client.call("avatar.splats", {"avatar": path, "pose": {}, "view": [0, 0, 1]})
    assert not mapped_by(client.pid, path)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux lists the files of a process")
def test_no_library_of_the_worker_can_wait_for_the_pipe_of_the_messages(client):
    """On Windows, a library that looks at file descriptor 0 waits until the thread that reads messages gets one."""
    client.call("hello", {})
    assert os.readlink(f"/proc/{client.pid}/fd/0") == os.devnull


# --- images


def test_the_gaussians_of_two_heads_are_sorted_together(client, model, avatar_path):
    """The nearer head hides the farther one in either order; the image is that of all their splats."""
    near = {"avatar": avatar_path, "pose": random_pose(model, 6, at=(0.03, 0, 0.2))}
    far = {"avatar": avatar_path, "pose": random_pose(model, 7, at=(-0.03, 0, -0.2), rotation=(0, 0.5, 0))}
    view = camera(at=(0, 0, 1.2), focal=300)
    both = client.call("avatar.render", {"subjects": [far, near], "camera": view})
    swapped = client.call("avatar.render", {"subjects": [near, far], "camera": view})
    assert np.abs(both["color"] - swapped["color"]).max() < 1e-4
    splats = [splats_of(client.call("avatar.splats", {**subject, "view": [0, 0, 1.2]})) for subject in (near, far)]
    together = Splats(*(torch.cat(pair, 1) for pair in zip(*(vars(part).values() for part in splats), strict=True)))
    matrices = (torch.as_tensor(view[name], dtype=torch.float32)[None] for name in ("intrinsics", "world_to_camera"))
    cameras = Cameras(*matrices, SIZE, SIZE)
    raster = rasterize(together, cameras)
    assert np.abs(both["color"] - raster.color[0].numpy()).max() < 1e-3
    assert np.abs(both["alpha"] - raster.alpha[0].numpy()).max() < 1e-3
    alone = client.call("avatar.render", {"subjects": [near], "camera": view})
    solid = alone["alpha"] > 0.98
    assert solid.sum() > 100 and np.abs(both["depth"][solid] - alone["depth"][solid]).max() < 0.02
    assert np.isinf(both["depth"][both["alpha"] == 0]).all() and (both["alpha"] == 0).any()


def test_an_orthographic_image_is_the_same_from_any_distance(client, model, avatar_path):
    subject = {"avatar": avatar_path, "pose": random_pose(model, 8)}
    views = (camera((0, 0, z), 300, orthographic=True) for z in (0.5, 40.0))
    near, far = (client.call("avatar.render", {"subjects": [subject], "camera": view}) for view in views)
    assert np.abs(near["color"] - far["color"]).max() < 5e-3
    solid = near["alpha"] > 0.5
    assert solid.sum() > 500 and np.abs(far["depth"][solid] - near["depth"][solid] - 39.5).max() < 1e-3


def test_orthographic_positions_sizes_and_depths_are_exact():
    """Three balls of one size, metres apart in depth, and one behind the camera, compared with values found by hand."""
    positions = np.array([[-0.30, 0.10, -3.0], [0.05, -0.20, 0.0], [0.30, 0.25, 2.0], [0.0, 0.0, 6.0]])
    count, radius, scale = len(positions), 0.03, 200.0
    splats = Splats(
        torch.tensor(positions, dtype=torch.float32)[None],
        torch.tensor([[[1.0, 0, 0, 0]]]).expand(1, count, 4),
        torch.full((1, count, 3), radius),
        torch.full((1, count), 0.9),
        torch.ones(1, count, 3),
    )
    given = camera((0.0, 0.0, 5.0), scale, orthographic=True, width=200, height=160)
    image = draw([splats], View(**given))
    rows, columns = np.mgrid[:160, :200] + 0.5
    for position in positions[:3]:
        x, y = 100 + scale * position[0], 80 - scale * position[1]
        near = np.hypot(columns - x, rows - y) < 3.5 * radius * scale
        weight = image.alpha * near
        assert abs((weight * columns).sum() / weight.sum() - x) < 0.05
        assert abs((weight * rows).sum() / weight.sum() - y) < 0.05
        spread = (weight * (columns - x) ** 2).sum() / weight.sum()
        assert abs(np.sqrt(spread) / (radius * scale) - 1) < 0.05
        assert np.abs(image.depth[near & (image.alpha > 0.5)] - (5.0 - position[2])).max() < 1e-3
    assert image.alpha[75:85, 95:105].max() < 0.01, "what is behind the camera was drawn"


def test_an_image_without_subjects_is_empty(client):
    image = client.call("avatar.render", {"subjects": [], "camera": camera(width=7, height=5)})
    assert image["color"].shape == (5, 7, 3) and not image["alpha"].any() and np.isinf(image["depth"]).all()


def test_arrays_leave_no_file_behind(client, model, avatar_path):
    for _ in range(3):
        client.call("avatar.splats", {"avatar": avatar_path, "pose": random_pose(model, 1), "view": [0, 0, 1]})
    client.call("head.rig", {})
    assert no_array_file_left(client)


def test_a_worker_without_shared_files_answers_the_same(client, model, avatar_path, tmp_path):
    request = {"avatar": avatar_path, "pose": random_pose(model, 1), "view": [0, 0, 1]}
    remote = make_client(tmp_path, arrays="inline")
    try:
        answer = remote.call("avatar.splats", request)
        assert remote.array_folders == []
    finally:
        remote.close()
    expected = client.call("avatar.splats", request)
    assert all(np.array_equal(answer[name], expected[name]) for name in expected)


# --- what is refused


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"view": None}, "needs “view”"),
        ({"view": [0, 0]}, "view must be 3 numbers, but is 2"),
        ({"view": "here"}, "view must be 3 numbers, but is “here”"),
        ({"avatar": "person.effigy"}, "must be a full path"),
        ({"avatar": "/nowhere/person.effigy"}, "There is no avatar at /nowhere/person.effigy"),
        ({"pose": {"expression": [0.0, 1.0]}}, "expression must be 52 numbers, but is 2"),
        ({"pose": {"jaws": [0, 0, 0]}}, "has no parameter “jaws”"),
        ({"pose": {"root": np.diag([1.0, 2, 1, 1]).tolist()}}, "scaled unevenly"),
        ({"pose": {"root": np.diag([-1.0, 1, 1, 1]).tolist()}}, "mirrored"),
        ({"pose": {"jaw": [0, float("nan"), 0]}}, "not finite"),
    ],
)
def test_bad_parameters_are_refused_with_a_sentence(client, avatar_path, change, sentence):
    with pytest.raises(WorkerError, match=sentence) as refused:
        client.call("avatar.splats", {"avatar": avatar_path, "pose": {}, "view": [0, 0, 1]} | change)
    assert refused.value.data is None


def test_an_unknown_method_is_refused_with_a_sentence(client):
    with pytest.raises(WorkerError, match="has no method “avatar.sing”"):
        client.call("avatar.sing")


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("hello", {"misspelt": 1}),
        ("head.rig", {"misspelt": 1}),
        ("head.rig", {"head": {"misspelt": 1}}),
        ("track.read", {"path": "/nowhere", "misspelt": 1}),
        ("capture.read", {"path": "/nowhere", "misspelt": 1}),
        ("avatar.open", {"path": "/nowhere", "misspelt": 1}),
        ("avatar.splats", {"avatar": "/nowhere", "misspelt": 1}),
        ("avatar.export", {"subjects": [], "path": "/nowhere", "misspelt": 1}),
        ("avatar.render", {"subjects": [], "misspelt": 1}),
        ("avatar.render", {"subjects": [], "camera": {"misspelt": 1}}),
        ("avatar.render", {"subjects": [{"avatar": "/nowhere", "misspelt": 1}], "camera": CAMERA}),
        ("job.start", {"kind": "track", "misspelt": 1}),
        ("job.cancel", {"job": "1", "misspelt": 1}),
    ],
)
def test_a_parameter_that_a_method_does_not_have_is_refused_by_its_name(client, method, params):
    with pytest.raises(WorkerError, match="has no parameter “misspelt”"):
        client.call(method, params)


@pytest.mark.parametrize(
    ("axes", "subjects", "sentence"),
    [
        (np.diag([1.0, 1, -1]), [], "must be a rotation"),
        (2 * np.eye(3), [], "must be a rotation"),
    ],
)
def test_an_export_that_makes_no_sense_is_refused(client, tmp_path, axes, subjects, sentence):
    with pytest.raises(WorkerError, match=sentence):
        client.call(
            "avatar.export", {"subjects": subjects, "axes": axes, "path": tmp_path / "a.ply", "view": [0, 0, 1]}
        )
    assert not list(tmp_path.iterdir())


def test_what_is_outside_of_the_clipping_range_is_not_drawn(client, avatar_path, model):
    subjects = [{"avatar": avatar_path, "pose": random_pose(model, 6, at=(0, 0, 0))}]
    # One metre before the face, which looks along +Z.
    matrix = np.diag([1.0, -1, -1, 1])
    matrix[2, 3] = 1
    camera = {"world_to_camera": matrix, "intrinsics": np.array([[90.0, 0, 32], [0, 90, 32], [0, 0, 1]])}

    def alpha(**clip):
        view = {**camera, "width": 64, "height": 64, **clip}
        return client.call("avatar.render", {"subjects": subjects, "camera": view})["alpha"]

    whole = alpha()
    assert np.array_equal(alpha(clip=[0.01, 1000.0]), whole) and whole.max() > 0.1
    assert alpha(clip=[3, 1000.0]).max() == alpha(clip=[0.01, 0.3]).max() == 0
    assert 0 < alpha(clip=[0.01, 1]).sum() < whole.sum()


def test_a_frame_without_an_avatar_is_an_empty_file(client, tmp_path):
    answer = client.call("avatar.export", {"subjects": [], "path": tmp_path / "a.ply", "view": [0, 0, 1]})
    assert answer["gaussians"] == 0 and b"element vertex 0\n" in (tmp_path / "a.ply").read_bytes()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"world_to_camera": np.diag([1.0, 1, -1, 1])}, "scaled or mirrored"),
        ({"world_to_camera": np.diag([2.0, 2, 2, 1])}, "scaled or mirrored"),
        ({"intrinsics": np.diag([0.0, 90, 1])}, "focal length must be above zero"),
        ({"intrinsics": np.diag([90.0, -1, 1])}, "focal length must be above zero"),
        ({"width": 0}, "width is 0"),
        ({"height": 0}, "height is 0"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(client, change, sentence):
    with pytest.raises(WorkerError, match=sentence):
        client.call("avatar.render", {"subjects": [], "camera": CAMERA | change})
