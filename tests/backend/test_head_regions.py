"""A head without names of regions takes them over from one that has them, wherever and however large it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from head_models import ball_head

from backend.head.formats import load_head
from backend.head.model import REGION_NAMES, HeadModel
from backend.head.regions import align_heads, transfer_regions
from backend.head.topology import connected_parts, mesh_edges, neck_ring


def with_eyeballs(model: HeadModel) -> HeadModel:
    """The ball with two small tetrahedra close beneath its skin, named as eyes, at the eye joints."""
    corners = 0.008 * np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)], np.float32)
    count = len(model.template)
    centres = np.array([(0.03, 0.03, 0.075), (-0.03, 0.03, 0.075)], np.float32)
    template = np.concatenate((model.template, *(corners + centre for centre in centres)))
    tetrahedron = np.array([(0, 1, 2), (0, 3, 1), (0, 2, 3), (1, 3, 2)], np.int32)
    faces = np.concatenate((model.faces, tetrahedron + count, tetrahedron + count + 4))
    grown = {
        name: np.concatenate((getattr(model, name), np.zeros((8, *getattr(model, name).shape[1:]), np.float32)))
        for name in ("shape_basis", "expression_basis", "pose_basis", "skinning")
    }
    grown["skinning"][count:, 3] = 1
    regressor = np.concatenate((model.joint_regressor, np.zeros((5, 8), np.float32)), 1)
    regressor[3:] = 0
    regressor[3, count : count + 4] = regressor[4, count + 4 :] = 0.25
    regions = dict(model.regions) | {"eyes": np.arange(count, count + 8, dtype=np.int32)}
    return replace(model, template=template, faces=faces, joint_regressor=regressor, regions=regions, **grown)


def nameless(model: HeadModel) -> HeadModel:
    return replace(model, regions={name: np.empty(0, np.int32) for name in REGION_NAMES})


def test_names_survive_scale_and_place_without_landmarks() -> None:
    named = with_eyeballs(ball_head())
    moved = replace(nameless(named), template=(1.2 * named.template + (0.01, 0.3, -0.05)).astype(np.float32))
    result = transfer_regions(named, moved)
    for name in ("face", "scalp", "neck", "eyes"):
        np.testing.assert_array_equal(result.regions[name], named.regions[name])


def test_landmarks_undo_a_rotation_too() -> None:
    named = with_eyeballs(ball_head())
    faces = np.full(478, -1, np.int32)
    faces[:20] = np.linspace(10, len(named.faces) - 30, 20).astype(int)
    barycentric = np.full((478, 3), 1 / 3, np.float32)
    named = replace(named, landmark_faces=faces, landmark_barycentric=barycentric)
    turn = np.array([(0, 0, 1), (0, 1, 0), (-1, 0, 0)], np.float64)
    moved = replace(nameless(named), template=(0.9 * named.template @ turn.T + 0.02).astype(np.float32))
    scale, rotation, shift = align_heads(named, moved)
    assert scale == pytest.approx(0.9, abs=1e-5)
    np.testing.assert_allclose(rotation, turn, atol=1e-5)
    np.testing.assert_allclose(shift, 0.02, atol=1e-6)
    np.testing.assert_array_equal(transfer_regions(named, moved).regions["face"], named.regions["face"])


def test_boundary_is_the_lowest_open_edge_of_the_mesh_itself() -> None:
    model = ball_head()
    edges, counts = mesh_edges(model.faces)
    lowest = model.template[:, 1].min()
    expected = np.flatnonzero(np.isclose(model.template[:, 1], lowest, atol=1e-6))
    np.testing.assert_array_equal(neck_ring(model.template, model.faces), expected)
    assert set(expected) < set(edges[counts == 1].ravel())
    np.testing.assert_array_equal(transfer_regions(model, nameless(model)).regions["boundary"], expected)


def test_real_flame_topology_gets_its_regions_from_the_open_head(shared_flame: Path) -> None:
    model = load_head(shared_flame)
    edges = mesh_edges(model.faces)[0]
    parts = connected_parts(edges, len(model.template))
    skin = parts == np.bincount(parts).argmax()
    # FLAME's eyeballs are its two other parts.
    np.testing.assert_array_equal(model.regions["eyes"], np.flatnonzero(~skin))
    named = ("lips", "ears", "scalp", "neck", "face")
    centre = {name: model.template[model.regions[name]].mean(0) for name in named}
    landmarks = (model.template[model.faces[model.landmark_faces]] * model.landmark_barycentric[..., None]).sum(1)
    # The detector's points on the lips (13 and 14 are the inner middles), those of them that FLAME's embedding has.
    lip_points = [index for index in (0, 17, 61, 291, 13, 14, 37, 267, 84, 314) if model.landmark_faces[index] >= 0]
    assert np.linalg.norm(centre["lips"] - landmarks[lip_points].mean(0)) < 0.012
    assert centre["scalp"][1] > centre["face"][1] > centre["neck"][1]
    assert abs(centre["ears"][0]) < 0.01 and np.abs(model.template[model.regions["ears"], 0]).min() > 0.05
    lids = model.template[model.regions["lids"]]
    eyes = model.template[model.regions["eyes"]]
    assert np.abs(lids.mean(0)[1] - eyes.mean(0)[1]) < 0.01
    assert 25 < len(model.regions["boundary"]) < 60
