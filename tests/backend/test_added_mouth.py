"""A FLAME head gets a mouth inside that moves with jaw, lips and identity; what was made without it still opens."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from flame_like import write_flame_like, write_without_mouth

from backend.errors import EffigyError
from backend.formats.track import Track, load_track, save_track
from backend.head import registry
from backend.head.added_mouth import mouth_contour, with_mouth
from backend.head.formats import load_head, save_head
from backend.head.forward import Head
from backend.head.model import JAW, HeadModel, same_coefficients
from backend.head.mouth import mouth_parts
from backend.head.topology import connected_parts, mesh_edges, neck_ring
from backend.retargeting.retarget import retarget
from backend.splatting.mesh import rasterize_mesh

SIZE = 200


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("heads") / "mouthless.npz"
    write_without_mouth(path)
    return path


@pytest.fixture(scope="module")
def bare(file: Path) -> HeadModel:
    return load_head(file, mouth=False)


@pytest.fixture(scope="module")
def model(file: Path) -> HeadModel:
    return load_head(file)


def posed(model: HeadModel, degrees: float = 0.0, identity: np.ndarray | None = None) -> np.ndarray:
    """(N, 3) with the jaw opened."""
    head, rotations = Head(model), torch.zeros(1, 5, 3)
    rotations[0, JAW, 0] = np.radians(degrees)
    shape = torch.zeros(1, head.identity_size) if identity is None else torch.as_tensor(identity)[None].float()
    return head(shape, torch.zeros(1, head.expression_size), rotations).vertices[0].numpy().astype(np.float64)


def seen(model: HeadModel, degrees: float) -> np.ndarray:
    """(SIZE, SIZE) nearest triangles of the mouth from the front, -1 where there is none."""
    vertices = posed(model, degrees)
    centre = vertices[model.regions["lips"]].mean(0)
    camera = (vertices - centre) * (1, -1, -1) + (0, 0, 0.5)
    intrinsics = np.array(((6 * SIZE, 0, SIZE / 2), (0, 6 * SIZE, SIZE / 2), (0, 0, 1)), np.float64)
    return rasterize_mesh(camera, model.faces, intrinsics, SIZE, SIZE).face_index


def performance(model: HeadModel, frames: int) -> Track:
    """One expression that comes at the end, before a still camera."""
    expression = np.zeros((frames, 52), np.float32)
    expression[-frames // 4 :, 3] = 0.5
    return Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=np.zeros(10, np.float32),
        expression=expression,
        rotations=np.zeros((frames, 5, 3), np.float32),
        head_to_camera=np.tile(np.diag((1.0, -1, -1, 1)).astype(np.float32), (frames, 1, 1)),
        intrinsics=np.eye(3, dtype=np.float32),
        size=64,
        fps=Fraction(25),
        residual=np.ones(frames, np.float32),
        flags=np.zeros(frames, np.int32),
        training_count=frames,
    )


def test_what_the_file_has_stays_first_and_as_it_is(bare: HeadModel, model: HeadModel) -> None:
    own = len(bare.template)
    assert model.own_count == own and 500 < model.added == len(model.template) - own < 1000
    for name in ("template", "shape_basis", "expression_basis", "pose_basis", "skinning"):
        np.testing.assert_array_equal(getattr(model, name)[:own], getattr(bare, name), name)
    np.testing.assert_array_equal(model.joint_regressor[:, :own], bare.joint_regressor)
    assert not model.joint_regressor[:, own:].any()
    np.testing.assert_array_equal(model.faces[: len(bare.faces)], bare.faces)
    np.testing.assert_array_equal(model.landmark_faces, bare.landmark_faces)
    np.testing.assert_allclose(model.skinning.sum(1), 1, atol=1e-5)
    assert model.uv.min() >= 0 and model.uv.max() <= 1 and len(model.uv_faces) == len(model.faces)
    # uv of the mouth lie apart from the head's.
    assert model.uv[: len(bare.uv), 1].min() > model.uv[len(bare.uv) :, 1].max()
    assert np.isin(np.arange(own, len(model.template)), model.regions["mouth_inside"]).all()
    assert all(len(mouth_parts(model)[name]) for name in ("teeth", "tongue", "wall"))


def test_the_wall_closes_the_opening_and_faces_into_the_mouth(bare: HeadModel, model: HeadModel) -> None:
    contour = mouth_contour(bare)
    assert len(contour) > 20 and not len(mouth_contour(model))
    sides = np.concatenate((model.faces[:, (0, 1)], model.faces[:, (1, 2)], model.faces[:, (2, 0)]))
    assert len(np.unique(sides, axis=0)) == len(sides), "neighbouring triangles of the wall have different orientations"
    edges, counts = mesh_edges(model.faces)
    assert not np.isin(contour, edges[counts == 1]).any()


def test_the_open_mouth_has_no_hole_and_shows_teeth_and_tongue(bare: HeadModel, model: HeadModel) -> None:
    empty, filled = seen(bare, 24), seen(model, 24)
    hole = filled >= len(bare.faces)
    assert hole.sum() > 2000
    # Nothing else changes: what was not seen through the mouth is as it was.
    np.testing.assert_array_equal(empty[~hole], filled[~hole])
    parts = mouth_parts(model)
    corner = model.faces[filled[hole], 0]
    teeth, tongue, wall = (np.isin(corner, parts[name]).sum() for name in ("teeth", "tongue", "wall"))
    assert teeth > 100 and tongue > 500 and wall > 100
    # Through closed lips no more shows than on the open head, whose lips leave a slit.
    whole = load_head()
    slit = np.isin(whole.faces[seen(whole, 0)], whole.regions["mouth_inside"]).all(-1)
    assert (seen(model, 0) >= len(bare.faces)).sum() <= slit.sum() < 60


def test_lower_teeth_and_tongue_move_with_the_jaw_and_the_wall_with_the_lips(bare: HeadModel, model: HeadModel) -> None:
    rest, opened = posed(model), posed(model, 24)
    moved = np.linalg.norm(opened - rest, axis=1)
    parts = mouth_parts(model)
    row = connected_parts(mesh_edges(model.faces)[0], len(rest))[parts["teeth"]]
    teeth = sorted((parts["teeth"][row == each] for each in np.unique(row)), key=lambda each: rest[each, 1].mean())
    assert len(teeth) == 2 and moved[teeth[1]].max() < 1e-6 and moved[teeth[0]].min() > 0.01
    assert moved[parts["tongue"]].min() > 0.005
    contour, first = mouth_contour(bare), model.own_count
    ring = np.arange(first, first + len(contour))
    np.testing.assert_allclose(moved[ring], moved[contour], atol=0.006)
    # An expression moves the wall less the deeper it is, and never teeth or tongue.
    reach = np.linalg.norm(model.expression_basis, axis=1).max(1)
    deepest = first + 9 * len(contour) + np.arange(len(contour))
    assert reach[ring].max() > 0.5 * reach[contour].max() and not reach[deepest].any()
    assert not reach[np.r_[parts["teeth"], parts["tongue"]]].any()


def test_teeth_follow_the_identity_as_the_skin_around_the_mouth_does(model: HeadModel) -> None:
    random = np.random.default_rng(0)
    teeth, lips = mouth_parts(model)["teeth"], model.regions["lips"]
    front = teeth[model.template[teeth, 2] > model.template[teeth, 2].max() - 0.01]
    apart, together = [], []
    for _ in range(8):
        change = posed(model, 0, 2 * random.normal(size=10)) - posed(model)
        apart.append(np.linalg.norm(change[front].mean(0) - change[lips].mean(0)))
        together.append(np.linalg.norm(change[lips].mean(0)))
    assert np.mean(apart) < 0.5 * np.mean(together) and max(apart) < 0.003


def test_a_head_with_teeth_or_without_a_jaw_stays_as_it_is(bare: HeadModel, model: HeadModel) -> None:
    named = load_head()
    assert with_mouth(named, named) is named and with_mouth(named, model) is model
    rigid = replace(bare, skinning=np.tile(np.array((0, 1, 0, 0, 0), np.float32), (len(bare.template), 1)))
    assert with_mouth(named, rigid) is rigid
    neck = neck_ring(bare.template, bare.faces)
    assert not np.isin(mouth_contour(bare), neck).any()


def test_tracks_and_avatars_from_before_find_the_head_without_a_mouth(
    file: Path, bare: HeadModel, model: HeadModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path))
    assert same_coefficients(bare.fingerprint, model.fingerprint) and bare.fingerprint != model.fingerprint
    registry.remember_head(model, file)
    assert registry.find_head("", bare.fingerprint, "The avatar").fingerprint == bare.fingerprint
    assert registry.find_head("", model.fingerprint, "The avatar").fingerprint == model.fingerprint
    # A track holds coefficients, and fits both.
    save_track(performance(bare, 2), tmp_path / "track.npz")
    assert load_track(tmp_path / "track.npz", model).head_fingerprint == bare.fingerprint
    with pytest.raises(EffigyError, match="was made on the head model"):
        load_track(tmp_path / "track.npz", load_head())


def test_a_performance_goes_over_to_the_same_head_without_a_mouth_as_it_is(bare: HeadModel, model: HeadModel) -> None:
    played = performance(model, 60)
    np.testing.assert_allclose(
        retarget(played, model, performance(bare, 60), bare).expression, played.expression, atol=1e-5
    )


def test_a_head_that_is_saved_with_its_mouth_keeps_its_fingerprint(model: HeadModel, tmp_path: Path) -> None:
    save_head(model, tmp_path / "saved.npz")
    assert load_head(tmp_path / "saved.npz").fingerprint == model.fingerprint


def test_flames_real_topology_gets_a_mouth(shared_flame: Path, tmp_path: Path) -> None:
    write_flame_like(shared_flame, tmp_path / "flame.npz")
    model = load_head(tmp_path / "flame.npz")
    assert model.own_count == 5023
    mouth = seen(model, 24)
    inside = mouth >= 9976
    corner = model.faces[mouth[inside], 0]
    parts = mouth_parts(model)
    assert inside.sum() > 2000 and not (seen(model, 0) >= 9976).any()
    assert np.isin(corner, parts["teeth"]).sum() > 100 and np.isin(corner, parts["tongue"]).sum() > 500
