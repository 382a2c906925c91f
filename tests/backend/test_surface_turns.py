"""Lips turn with the mesh around them, in the backend, in the extension's player and in the reference reader."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from backend.avatar.avatar import Avatar, build_networks, load_avatar, save_avatar
from backend.avatar.posing import blend_rotations, pose_rig
from backend.avatar.settings import AvatarSettings
from backend.avatar.surface_turns import SurfaceTurns, nearest_rotations, turning_lips
from backend.formats.track import Track
from backend.head.formats import load_head
from backend.head.forward import Head
from backend.head.jaw import jaw_rotations_of_shapes
from backend.head.model import JAW
from backend.head.mouth import mouth_rows
from backend.head.rotations import quaternion_to_matrix
from backend.training.frames import TrackPoses
from backend.training.losses import mouth_rings
from blender_addon.errors import EffigyError
from blender_addon.player.baked_file import read_baked
from blender_addon.player.head import HeadDeltas, pose_head

READER = Path(__file__).resolve().parents[2] / "docs" / "read_avatar.py"


@pytest.fixture(scope="module")
def model():
    return load_head()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory) -> Path:
    torch.manual_seed(0)
    identity = np.random.default_rng(0).normal(0, 0.5, model.shape_basis.shape[2]).astype(np.float32)
    settings = AvatarSettings(blendshapes=2, feature_size=4, neural_width=4)
    avatar = Avatar(build_networks(settings, model, identity).eval(), model, identity, settings)
    path = tmp_path_factory.mktemp("avatar") / "person.effigy"
    save_avatar(avatar, path)
    return path


def open_mouth(model) -> tuple[torch.Tensor, torch.Tensor]:
    """An expression (1, E) and rotations (1, 5, 3): a funnel with the jaw wide open, and the neck turned."""
    expression, rotations = torch.zeros(1, len(model.expression_names)), torch.zeros(1, 5, 3)
    expression[0, model.expression_names.index("mouthFunnel")] = 1.0
    rotations[0, JAW] = torch.as_tensor(jaw_rotations_of_shapes(model)["jawOpen"])
    rotations[0, 1] = torch.tensor((0.1, 0.4, -0.1))
    return expression, rotations


def directions(vertices: torch.Tensor, edges: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.normalize(vertices[edges[:, 1]] - vertices[edges[:, 0]], dim=-1)


def test_rows_of_an_open_mouth_keep_their_direction_in_the_frame_of_their_vertices(model):
    """What a Gaussian along the row at rest has to do. By the joints alone, the worst are almost a right angle off."""
    head = Head(model)
    shaped = head.shaped(torch.zeros(1, model.shape_basis.shape[2]))
    arguments = (head, shaped, *open_mouth(model), torch.eye(4)[None])
    rings = mouth_rings(model)
    rings = rings[(mouth_rows(model)[rings] > 0).all(1)]
    worst = {}
    for name, turns in (("joints", None), ("surface", turning_lips(model))):
        pose = pose_rig(*arguments, turns=turns)
        turn = quaternion_to_matrix(pose.rotations[0, rings[:, 0]])
        expected = (turn @ directions(shaped.vertices[0], rings)[..., None])[..., 0]
        cosine = (expected * directions(pose.posed[0], rings)).sum(-1).abs().clamp(max=1)
        worst[name] = torch.rad2deg(torch.arccos(cosine)).quantile(0.9).item()
    assert worst["joints"] > 45 and worst["surface"] < 0.5 * worst["joints"]


def test_a_head_that_moves_as_a_whole_turns_its_lips_as_a_whole(model):
    head, rotations = Head(model), torch.zeros(1, 5, 3)
    rotations[0, 0] = torch.tensor((0.3, -1.2, 0.5))
    shaped = head.shaped(torch.zeros(1, model.shape_basis.shape[2]))
    still = torch.zeros(1, head.expression_size)
    both = [
        pose_rig(head, shaped, still, rotations, torch.eye(4)[None], turns=turns).rotations
        for turns in (None, turning_lips(model))
    ]
    alike = (both[0] * both[1]).sum(-1).abs()
    assert alike.min() > 1 - 1e-5


def test_the_nearest_rotation_is_that_of_the_singular_value_decomposition():
    random = torch.Generator().manual_seed(4)
    matrices = torch.randn(400, 3, 3, generator=random, dtype=torch.float64) + 1.5 * torch.eye(3, dtype=torch.float64)
    instead = torch.tensor((0.0, 1, 0, 0), dtype=torch.float64).expand(400, 4)
    found = quaternion_to_matrix(nearest_rotations(matrices, instead))
    left, _, right = torch.linalg.svd(matrices)
    proper = torch.det(matrices) > 0.05
    assert 200 < proper.sum() < 390
    torch.testing.assert_close(found[proper], (left @ right)[proper], atol=1e-6, rtol=0)
    mirrored = torch.det(matrices) < 0
    torch.testing.assert_close(found[mirrored], quaternion_to_matrix(instead)[mirrored], atol=1e-12, rtol=0)


def test_a_mesh_that_has_shrunk_to_a_point_turns_with_its_joints():
    turns = SurfaceTurns(torch.tensor([0]), torch.tensor([[1, 2]]))
    quaternions = torch.tensor([[[0.6, 0, 0.8, 0]] * 3])
    for rest in (torch.zeros(1, 3, 3), torch.eye(3)[None]):
        found = turns.of_vertices(rest, torch.zeros(1, 3, 3), quaternions)
        torch.testing.assert_close(found, quaternions, atol=1e-6, rtol=0)


def reader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("read_avatar", READER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_player_and_reader_turn_the_lips_as_the_backend(file, model):
    avatar = load_avatar(file, model)
    expression, rotations = open_mouth(model)
    expected = avatar.pose(expression, rotations, torch.eye(4)[None]).rotations[0].numpy()
    by_joints = blend_rotations(
        avatar.head.skinning, avatar.head(avatar.shaped, expression, rotations).joint_transforms[:, :, :3, :3]
    )[0].numpy()
    lips = model.regions["lips"]
    assert np.abs((expected * by_joints).sum(1))[lips].min() < 0.95
    assert np.array_equal(np.delete(expected, lips, 0), np.delete(by_joints, lips, 0))
    baked = read_baked(file)
    used = np.flatnonzero(model.pose_basis.any((0, 1)))
    planar = (np.ascontiguousarray(basis.transpose(2, 1, 0)) for basis in (model.expression_basis, model.pose_basis))
    expression_deltas, correctives = planar
    deltas = HeadDeltas(expression_deltas, correctives[used], used)
    played = pose_head(
        *(baked.vertices, baked.joints, baked.skinning, deltas),
        *(expression[0].numpy(), rotations[0].numpy(), baked.turns),
    ).quaternions.T
    own = reader()
    read = own.posed_head(own.read(file)[1], expression[0].numpy(), rotations[0].numpy())[1]
    for found in (played, read):
        assert np.abs((found * expected).sum(1)).min() > 1 - 1e-5


def test_files_from_before_lips_turned_keep_them_as_they_were(file, model, tmp_path):
    avatar = load_avatar(file, model)
    older = replace(avatar, settings=replace(avatar.settings, lips_turn=0))
    save_avatar(older, tmp_path / "older.effigy")
    again = load_avatar(tmp_path / "older.effigy", model)
    assert again.settings.lips_turn == 0 and again.turns is None and read_baked(tmp_path / "older.effigy").turns is None
    pose = (*open_mouth(model), torch.eye(4)[None])
    torch.testing.assert_close(again.pose(*pose).rotations, older.pose(*pose).rotations)
    assert not torch.allclose(again.pose(*pose).rotations, avatar.pose(*pose).rotations, atol=0.1)


@pytest.mark.parametrize("fault", ["beyond", "negative", "twice", "alone", "none"])
def test_turning_vertices_that_no_head_has_are_refused(file, tmp_path, fault):
    with safe_open(file, "pt") as stored:
        tensors, metadata = {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata()
    rows = tensors["baked.turning"]
    if fault == "twice":
        rows[1] = rows[0]
    elif fault in ("beyond", "negative"):
        rows[0, 1] = len(tensors["baked.vertices"]) if fault == "beyond" else -1
    else:
        rows = rows[:, :1].contiguous() if fault == "alone" else rows[:0]
    save_file(tensors | {"baked.turning": rows}, tmp_path / "odd.effigy", metadata)
    with pytest.raises(EffigyError, match="is damaged"):
        read_baked(tmp_path / "odd.effigy")


def test_training_and_fitting_pose_the_lips_as_the_avatar_says(track, model):
    rotations = [
        TrackPoses(track, model, lips_turn=turn).pose(np.array([0])).rotations[0].numpy() for turn in (True, False)
    ]
    lips = model.regions["lips"]
    assert np.abs((rotations[0] * rotations[1]).sum(1))[lips].min() < 0.95


@pytest.fixture
def track(model):
    expression, rotations = open_mouth(model)
    return Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=np.zeros(model.shape_basis.shape[2], np.float32),
        expression=expression.numpy(),
        rotations=rotations.numpy(),
        head_to_camera=np.eye(4, dtype=np.float32)[None],
        intrinsics=np.eye(3, dtype=np.float32),
        size=64,
        fps=25,
        residual=np.zeros(1, np.float32),
        flags=np.zeros(1, np.int32),
        training_count=1,
    )
