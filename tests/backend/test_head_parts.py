"""Alignment, regions, parts and closest points of heads, on heads that are simple enough to know the answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from head_models import ball_head
from test_head_regions import nameless, with_eyeballs

from backend.head.closest_point import closest_barycentric, closest_on_mesh
from backend.head.eye_size import IRIS_RADIUS, PUPIL_RADIUS
from backend.head.formats import load_head
from backend.head.forward import landmark_valid
from backend.head.jaw import RETARGETING_LIMITS, TRACKING_LIMITS, jaw_rotations_of_shapes
from backend.head.model import EYE_L, EYE_R, JAW, HeadModel
from backend.head.mouth import mouth_parts
from backend.head.regions import align_heads, transfer_regions
from backend.head.topology import connected_parts, mesh_edges, neck_ring

SQUARE = np.array([(0, 1, 2), (0, 2, 3)])
"""Two triangles of a square."""


def moved(model: HeadModel, scale: float, shift: tuple[float, float, float]) -> HeadModel:
    return replace(model, template=(scale * model.template + shift).astype(np.float32))


def with_landmarks(model: HeadModel, count: int) -> HeadModel:
    faces = np.full(478, -1, np.int32)
    faces[:count] = np.linspace(10, 800, count).astype(int)
    barycentric = np.full((478, 3), (0.5, 0.25, 0.25), np.float32)
    return replace(model, landmark_faces=faces, landmark_barycentric=barycentric)


# --- alignment


def test_heads_are_aligned_by_landmarks_where_eight_are_shared_and_else_by_the_eyes() -> None:
    turn = np.array([(0, 0, 1), (0, 1, 0), (-1, 0, 0)], np.float64)
    for count, rotation in ((8, turn), (7, np.eye(3))):
        model = with_landmarks(with_eyeballs(ball_head()), count)
        turned = replace(model, template=(0.9 * model.template @ turn.T + 0.02).astype(np.float32))
        np.testing.assert_allclose(align_heads(model, turned).rotation, rotation, atol=1e-5)
    one_sided = with_landmarks(model, 20)
    assert np.array_equal(align_heads(one_sided, nameless(turned)).rotation, np.eye(3)), "seven are shared"


def test_without_landmarks_the_eyes_say_size_and_place() -> None:
    model = with_eyeballs(ball_head())
    other = moved(model, 1.25, (0.1, -0.2, 0.3))
    scale, rotation, translation = align_heads(model, other)
    assert scale == pytest.approx(1.25, rel=1e-4) and np.array_equal(rotation, np.eye(3))
    np.testing.assert_allclose(translation, (0.1, -0.2, 0.3), atol=1e-6)


def test_without_eyes_the_top_the_front_and_the_width_do() -> None:
    model = ball_head()
    regressor = model.joint_regressor.copy()
    regressor[EYE_R] = regressor[EYE_L]
    eyeless = replace(model, joint_regressor=regressor)
    # A longer neck moves neither the top nor the front.
    other = moved(eyeless, 1.5, (0.1, -0.2, 0.3))
    template = other.template.copy()
    template[template[:, 1] < template[:, 1].min() + 0.02, 1] -= 0.4
    for first, second in ((eyeless, replace(other, template=template)), (model, replace(other, template=template))):
        scale, rotation, translation = align_heads(first, second)
        assert scale == pytest.approx(1.5, rel=1e-5) and np.array_equal(rotation, np.eye(3))
        np.testing.assert_allclose(translation, (0.1, -0.2, 0.3), atol=1e-6)


# --- regions


def test_a_separate_part_gets_the_names_of_its_majority_as_a_whole() -> None:
    model = with_eyeballs(ball_head())
    eyes = model.regions["eyes"]
    # Three of one eyeball's four vertices and two of the other's are named.
    named = replace(model, regions=dict(model.regions) | {"eyes": np.sort(np.r_[eyes[:3], eyes[4:6]]).astype(np.int32)})
    assert transfer_regions(named, nameless(model)).regions["eyes"].tolist() == eyes[:4].tolist()


def test_the_parts_of_a_head_whose_model_has_none_get_the_names_of_the_skin() -> None:
    model = ball_head()
    result = transfer_regions(model, nameless(with_eyeballs(model)))
    assert len(result.template) == len(model.template) + 8
    for name in ("face", "scalp", "neck"):
        ours = result.regions[name][result.regions[name] < len(model.template)]
        assert np.array_equal(ours, model.regions[name]) and result.regions[name].dtype == np.int32
    assert np.isin(np.arange(len(model.template), len(result.template)), result.regions["face"]).all()


def test_a_vertex_may_have_several_names() -> None:
    model = ball_head()
    named = replace(model, regions=dict(model.regions) | {"lips": model.regions["face"][:5]})
    regions = transfer_regions(named, nameless(model)).regions
    assert np.array_equal(regions["lips"], model.regions["face"][:5])
    assert np.array_equal(regions["face"], model.regions["face"])


# --- topology


def test_edges_are_listed_once_with_the_number_of_their_triangles() -> None:
    edges, counts = mesh_edges(SQUARE)
    assert edges.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [2, 3]] and counts.tolist() == [1, 2, 1, 1, 1]
    parts = connected_parts(np.array([(0, 1), (3, 4)]), 6)
    assert parts[0] == parts[1] != parts[3] == parts[4] and len(set(parts.tolist())) == 4


def test_the_neck_is_the_lower_of_two_openings_and_on_a_closed_mesh_the_lowest_vertex() -> None:
    model = ball_head()
    upside_down = model.template * (1, -1, 1)
    assert neck_ring(upside_down, model.faces).tolist() == list(range(24))
    corners = np.array([(0, 0, 0), (1, 0, 0), (0, -1, 0), (0, 0, 1)], np.float32)
    tetrahedron = np.array([(0, 1, 2), (0, 3, 1), (0, 2, 3), (1, 3, 2)])
    assert neck_ring(corners, tetrahedron).tolist() == [2]


# --- the mouth and the jaw


def test_the_mouth_of_the_open_head_has_teeth_a_tongue_and_a_wall() -> None:
    model = load_head()
    parts = mouth_parts(model)
    assert list(parts) == ["teeth", "tongue", "wall"]
    together = np.concatenate(list(parts.values()))
    assert np.array_equal(np.sort(together), np.sort(model.regions["mouth_inside"]))
    rows = connected_parts(mesh_edges(model.faces)[0], len(model.template))
    assert [len(set(rows[parts[name]])) for name in parts] == [2, 1, 1]
    skin = np.bincount(rows).argmax()
    assert (rows[parts["wall"]] == skin).all() and (rows[parts["tongue"]] != skin).all()
    # The tongue lies in the middle, the teeth around it.
    assert np.abs(model.template[parts["tongue"], 0]).max() < np.abs(model.template[parts["teeth"], 0]).max()


def test_a_mouth_without_anything_in_it_has_empty_parts() -> None:
    model = ball_head()
    assert [len(part) for part in mouth_parts(model).values()] == [0, 0, 0]
    walled = replace(model, regions=dict(model.regions) | {"mouth_inside": np.array([5, 6], np.int32)})
    assert {name: part.tolist() for name, part in mouth_parts(walled).items()} == {
        "teeth": [],
        "tongue": [],
        "wall": [5, 6],
    }


def test_a_head_whose_shapes_or_jaw_are_missing_opens_by_the_usual_angles() -> None:
    usual = {"jawOpen": (24, 0, 0), "jawLeft": (0, 6, 0), "jawRight": (0, -6, 0)}
    model = ball_head()
    unbound = replace(model, skinning=np.where(np.arange(5) == JAW, 0, model.skinning).astype(np.float32))
    for head in (model, replace(unbound, expression_names=("jawOpen", *unbound.expression_names[1:]))):
        found = jaw_rotations_of_shapes(head)
        assert {name: np.degrees(angle).tolist() for name, angle in found.items()} == {
            name: pytest.approx(angle) for name, angle in usual.items()
        }


def test_a_shape_that_turns_the_jaw_is_that_turn() -> None:
    model = ball_head(expressions=1)
    angle = 0.3
    joint = model.joint_regressor[JAW].astype(np.float64) @ model.template
    turn = np.array([(1, 0, 0), (0, np.cos(angle), -np.sin(angle)), (0, np.sin(angle), np.cos(angle))])
    shape = (model.template - joint) @ turn.T - (model.template - joint)
    # What the jaw moves only in part does not count: here it moves the other way.
    skinning = model.skinning.copy()
    half = skinning[:, JAW] <= 0.9
    shape[half] *= -1
    opening = replace(model, expression_names=("jawOpen",), expression_basis=shape[..., None].astype(np.float32))
    found = jaw_rotations_of_shapes(opening)
    np.testing.assert_allclose(found["jawOpen"], (angle, 0, 0), atol=1e-4)
    np.testing.assert_allclose(np.degrees(found["jawLeft"]), (0, 6, 0), atol=1e-9)


def test_jaw_and_gaze_have_their_limits() -> None:
    degrees = {name: np.degrees(limit).tolist() for name, limit in vars(TRACKING_LIMITS).items()}
    assert degrees["jaw_lower"] == pytest.approx([-2, -10, -8]) and degrees["jaw_upper"] == pytest.approx([40, 10, 8])
    assert degrees["gaze"] == pytest.approx([35, 45])
    wider = {name: np.degrees(limit).tolist() for name, limit in vars(RETARGETING_LIMITS).items()}
    assert wider["jaw_lower"] == pytest.approx([-4, -12, -8]) and wider["jaw_upper"] == pytest.approx([40, 12, 8])
    assert wider["gaze"] == pytest.approx([35, 45])
    # An iris is 11.8 mm wide.
    assert (IRIS_RADIUS, PUPIL_RADIUS) == (0.0059, 0.0022)


# --- closest points


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((0.25, 0.25, 1.0), (0.5, 0.25, 0.25)),
        ((0.0, 0.0, -1.0), (1, 0, 0)),
        ((0.5, 0.5, 0.3), (0, 0.5, 0.5)),
        ((0.3, -2.0, 0.0), (0.7, 0.3, 0)),
        ((-2.0, 0.6, 0.0), (0.4, 0, 0.6)),
        ((2.0, 2.5, 0.0), (0, 0.25, 0.75)),
        ((9.0, -9.0, 0.0), (0, 1, 0)),
        ((-9.0, 9.0, 0.0), (0, 0, 1)),
    ],
)
def test_the_closest_point_of_a_triangle(point: tuple[float, ...], expected: tuple[float, ...]) -> None:
    corners = np.array([[(0, 0, 0), (1, 0, 0), (0, 1, 0)]], np.float64)
    assert closest_barycentric(np.array([point]), corners)[0] == pytest.approx(expected, abs=1e-12)


def test_triangles_without_area_have_a_closest_point_as_well() -> None:
    line = np.array([[(0, 0, 0), (1, 0, 0), (2, 0, 0)], [(1, 1, 1), (1, 1, 1), (1, 1, 1)]], np.float64)
    found = closest_barycentric(np.array([(1.5, 3.0, 0), (0, 0, 0)], np.float64), line)
    places = (found[..., None] * line).sum(1)
    np.testing.assert_allclose(places, [(1.5, 0, 0), (1, 1, 1)], atol=1e-12)
    assert np.isfinite(found).all()


def test_a_mesh_of_many_triangles_is_searched_among_the_nearest() -> None:
    model = ball_head()
    triangles = model.template[model.faces].astype(np.float64)
    middle = triangles.mean(1)
    best, barycentric = closest_on_mesh(1.01 * middle[::7], triangles)
    assert np.array_equal(best, np.arange(len(triangles))[::7]) and barycentric.dtype == np.float32
    np.testing.assert_allclose((triangles[best] * barycentric[..., None]).sum(1), middle[::7], atol=2e-3)
    # A large triangle whose middle is far away is found where it is among the candidates, and not otherwise.
    large = np.array([(0.0, 0.19, 0.0), (9.0, 0.19, 0.0), (0.0, 0.19, 9.0)])
    both = np.concatenate((triangles, large[None]))
    above = np.array([(0.01, 0.2, 0.01)])
    assert closest_on_mesh(above, both, candidates=len(both))[0].tolist() == [len(triangles)]
    assert closest_on_mesh(above, both)[0][0] < len(triangles)
    alone, coordinates = closest_on_mesh(above, large[None])
    assert alone.tolist() == [0] and coordinates.shape == (1, 3)


def test_landmarks_exist_where_a_head_has_a_triangle_for_them() -> None:
    valid = landmark_valid(with_landmarks(ball_head(), 3))
    assert valid[:3].all() and not valid[3:].any()
    first = ball_head()
    assert landmark_valid(replace(first, landmark_faces=np.zeros(478, np.int32))).all()
