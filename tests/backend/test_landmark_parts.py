"""The landmarks' table, the paint and light of a rendered face, and the robust mean of what the detector found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from head_models import ball_head
from test_head_parts import with_landmarks
from test_head_regions import with_eyeballs

from backend.correspondence import arkit, landmark_embedding
from backend.correspondence.arkit import MIN_LANDMARKS, transferred_shapes
from backend.correspondence.landmark_embedding import (
    IMAGE_SIZE,
    _aggregate,
    _Detections,
    _faces_within,
    _nearest_pixel,
    _Surface,
    _views,
    _weighted_median,
    mirror_landmarks,
)
from backend.correspondence.landmark_render import FacePaint, shade
from backend.correspondence.landmark_sets import (
    BROW_EDGES,
    BROWS,
    FACE_OVAL,
    IBUG_68,
    INNER_LIPS,
    JAW_LINE,
    LEFT_IRIS,
    LEFT_LIDS,
    LID_PAIRS,
    LIP_PAIRS,
    LIPS,
    OUTER_LIPS,
    PAIRS,
    RIGHT_IRIS,
    RIGHT_LIDS,
    SURFACE_COUNT,
    point_weights,
    reported_points,
    solved_points,
)
from backend.errors import EffigyError
from backend.head.formats import load_head
from backend.head.jaw import JAW_SHAPES
from backend.head.model import JAW, HeadModel
from backend.splatting.mesh import rasterize_mesh

# --- the table


def test_the_table_names_each_landmark_once_in_its_place() -> None:
    mirror = mirror_landmarks()
    assert np.array_equal(mirror[mirror], np.arange(478))
    sets = (FACE_OVAL, OUTER_LIPS, INNER_LIPS, LEFT_LIDS, RIGHT_LIDS, BROWS, LEFT_IRIS, RIGHT_IRIS)
    assert [len(each) for each in sets] == [36, 20, 20, 16, 16, 20, 5, 5]
    everything = np.concatenate(sets)
    assert len(np.unique(everything)) == len(everything) and everything.max() == 477
    assert set(mirror[LEFT_LIDS].tolist()) == set(RIGHT_LIDS.tolist())
    assert set(mirror[LEFT_IRIS].tolist()) == set(RIGHT_IRIS.tolist())
    for left, right in zip(BROW_EDGES["left"], BROW_EDGES["right"], strict=True):
        assert np.array_equal(mirror[left], right)
    for name in (OUTER_LIPS, INNER_LIPS, FACE_OVAL, LIP_PAIRS.ravel()):
        assert set(mirror[name].tolist()) == set(name.tolist())
    assert set(mirror[LID_PAIRS["left"]].ravel().tolist()) == set(LID_PAIRS["right"].ravel().tolist())
    # From ear to ear along the chin.
    assert len(JAW_LINE) == 21 and JAW_LINE[10] == 152 and np.array_equal(mirror[JAW_LINE], JAW_LINE[::-1])
    assert len(LIPS) == 40 and PAIRS.shape == (17, 2) and len(IBUG_68) == 68 == len(set(IBUG_68[:60].tolist())) + 8


def test_the_features_of_the_open_head_lie_where_the_table_says() -> None:
    model = load_head()
    points = (model.template[model.faces[model.landmark_faces]] * model.landmark_barycentric[..., None]).sum(1)
    valid = model.landmark_faces >= 0
    for upper, lower in np.concatenate((LID_PAIRS["left"], LID_PAIRS["right"], LIP_PAIRS)):
        if valid[[upper, lower]].all():
            assert points[upper, 1] > points[lower, 1] - 0.001
    for lids, iris, side in ((LEFT_LIDS, LEFT_IRIS, 1), (RIGHT_LIDS, RIGHT_IRIS, -1)):
        corners = points[lids[[0, 8]], 0] * side
        assert corners[0] > points[iris[0], 0] * side > corners[1] > 0


def test_features_count_twice_and_the_hairs_edge_hardly() -> None:
    weights = point_weights()
    assert weights.dtype == np.float32 and weights.shape == (478,)
    twice = np.concatenate((LIPS, LEFT_LIDS, RIGHT_LIDS, LEFT_IRIS, RIGHT_IRIS))
    assert (weights[twice] == 2).all() and (weights[BROWS] == 1).all() and (weights[JAW_LINE] == 1).all()
    hair = np.setdiff1d(FACE_OVAL, JAW_LINE)
    assert len(hair) == 15 and weights[hair] == pytest.approx(0.05)
    assert (weights == 1).sum() == 478 - len(twice) - len(hair)
    reported = reported_points()
    assert reported.sum() == 478 - 36 and not reported[FACE_OVAL].any()


def test_the_solver_gets_every_feature_and_skin_that_is_far_from_it() -> None:
    positions = np.zeros((478, 3))
    positions[:, 0] = np.arange(478) / 1000
    valid = np.ones(478, bool)
    features = set(
        np.concatenate((LIPS, LEFT_LIDS, RIGHT_LIDS, BROWS, LEFT_IRIS, RIGHT_IRIS, JAW_LINE, PAIRS.ravel())).tolist()
    )
    assert set(solved_points(positions, valid, 0).tolist()) == features
    chosen = solved_points(positions, valid, len(features) + 3)
    assert len(chosen) == len(features) + 3 and (np.diff(chosen) > 0).all()
    # The farthest from all that are chosen comes first, then the farthest from these and it.
    known = sorted(features)
    for point in (next(iter(sorted(set(chosen.tolist()) - features, key=lambda p: -gap(p, known)))),):
        assert gap(point, known) == max(gap(other, known) for other in range(478))
    assert len(solved_points(positions, valid, 9999)) == 478
    valid[:] = False
    valid[[5, 9]] = True
    assert solved_points(positions, valid, 1).tolist() in ([5], [9])
    assert solved_points(positions, valid, 9).tolist() == [5, 9]


def gap(point: int, others: list[int]) -> int:
    return min(abs(point - other) for other in others)


# --- the paint and the light


def test_both_eyes_are_painted_and_the_canvas_lies_below_them() -> None:
    model = with_eyeballs(ball_head())
    paint = FacePaint.plain(replace(model, regions=dict(model.regions) | {"mouth_inside": np.array([3, 4], np.int32)}))
    assert paint.eye_centres == pytest.approx(np.array([(0.03, 0.03), (-0.03, 0.03)]), abs=1e-6)
    assert paint.centre == pytest.approx((0, 0), abs=1e-6)
    assert np.flatnonzero(paint.eye_vertices).tolist() == model.regions["eyes"].tolist()
    assert np.flatnonzero(paint.mouth_vertices).tolist() == [3, 4]
    assert not paint.lips.any() and not paint.brows.any() and paint.lips.shape == (480, 480)
    one_eye = replace(model, regions=dict(model.regions) | {"eyes": model.regions["eyes"][:4]})
    assert FacePaint.plain(one_eye).eye_centres.tolist() == [pytest.approx((0.03, 0.03))]
    eyeless = FacePaint.plain(ball_head())
    assert eyeless.eye_centres.shape == (0, 2) and eyeless.centre == pytest.approx((0, 0), abs=1e-3)


def test_paint_lies_between_its_landmarks_at_half_a_millimetre_a_cell() -> None:
    paint = FacePaint.plain(ball_head())
    assert paint.cells(paint.centre) == pytest.approx((240, 240))
    assert paint.cells(paint.centre + (0.01, -0.02)) == pytest.approx((260, 200))
    points = np.full((478, 3), np.nan)
    around = np.linspace(0, 2 * np.pi, len(OUTER_LIPS), endpoint=False)
    points[OUTER_LIPS] = paint.centre[0], paint.centre[1], 0
    points[OUTER_LIPS, 0] += 0.02 * np.cos(around)
    points[OUTER_LIPS, 1] += 0.01 * np.sin(around) - 0.03
    upper, lower = BROW_EDGES["left"]
    for edge, y in ((upper, 0.032), (lower, 0.028)):
        points[edge] = np.stack(
            (paint.centre[0] + np.linspace(0.04, 0.02, 5), np.full(5, paint.centre[1] + y), 0 * edge), 1
        )
    painted = paint.with_features(points)
    places = paint.centre + np.array(
        [[(0, -0.03), (0.018, -0.03), (0, -0.045), (0.03, 0.03), (-0.03, 0.03), (0.03, 0.04)]]
    )
    assert paint.sample(painted.lips, places)[0] == pytest.approx((1, 1, 0, 0, 0, 0), abs=0.05)
    assert paint.sample(painted.brows, places)[0] == pytest.approx((0, 0, 0, 1, 0, 0), abs=0.05)
    assert painted.brows.max() <= 1 and not paint.with_features(np.full((478, 3), np.nan)).lips.any()
    # An area of 40 by 20 mm as an ellipse has 628 square millimetres, four cells each.
    assert painted.lips.sum() / 4 == pytest.approx(np.pi * 20 * 10, rel=0.03)


def shaded(model: HeadModel, light: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    vertices = model.template * (1, -1, -1) + (0, 0, 0.6)
    intrinsics = np.array([[300.0, 0, 64], [0, 300.0, 64], [0, 0, 1]])
    raster = rasterize_mesh(vertices.astype(np.float64), model.faces, intrinsics, 128, 128)
    skin = np.array([0.8, 0.6, 0.5])
    image, facing = shade(model, vertices, raster, FacePaint.plain(model), np.array(light), skin)
    return image, facing, raster.covered


def test_a_face_is_lit_by_its_key_light_before_a_grey_wall() -> None:
    image, facing, covered = shaded(ball_head(), (-0.8, 0.0, -0.6))
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    assert facing[64, 64] == pytest.approx(1, abs=0.02) and not facing[~covered].any()
    assert (facing[covered] > -0.1).all()
    # Straight ahead: 0.38 + 0.22 + 0.5 x 0.6 of the skin's colour.
    assert image[64, 64] == pytest.approx(np.array([0.8, 0.6, 0.5]) * 0.9 * 255, abs=3)
    assert image[64, 40].sum() > image[64, 64].sum() > image[64, 88].sum()
    wall = image[:, 2].astype(float) / 255
    assert not covered[:, 2].any()
    assert wall[:, 0] == pytest.approx(np.linspace(0.62, 0.45, 128), abs=0.003)
    assert np.array_equal(wall[:, 0], wall[:, 1]) and np.array_equal(wall[:, 0], wall[:, 2])


def test_eyes_are_white_with_a_dark_middle_and_the_mouth_is_dark() -> None:
    ball = ball_head(rings=60, sectors=80)
    place = ball.template - (0.03, 0.03, 0.09)
    eye = np.flatnonzero(np.linalg.norm(place[:, :2], axis=1) < 0.02)
    eye = eye[ball.template[eye, 2] > 0]
    mouth = np.flatnonzero((np.abs(ball.template[:, 0]) < 0.02) & (np.abs(ball.template[:, 1] + 0.05) < 0.01))
    mouth = mouth[ball.template[mouth, 2] > 0]
    regions = dict(ball.regions) | {"eyes": eye.astype(np.int32), "mouth_inside": mouth.astype(np.int32)}
    image = shaded(replace(ball, regions=regions), (0, 0, -1))[0].astype(int)
    plain = shaded(ball, (0, 0, -1))[0].astype(int)
    centre = FacePaint.plain(replace(ball, regions=regions)).eye_centres[0]

    def at(x: float, y: float) -> np.ndarray:
        z = 0.6 - np.sqrt(0.01 - x * x - y * y)
        return (image - plain)[int(64 - 300 * y / z), int(64 + 300 * x / z)]

    iris, white = at(centre[0] + 0.004, centre[1]), at(centre[0] + 0.011, centre[1])
    assert at(*centre).sum() < iris.sum() < -100, "the pupil is darker than the iris"
    assert white.min() > 0 and white[2] > 40
    assert at(0, -0.05).sum() < -150 and not at(0, 0).any()


# --- what the detector found


def test_the_nearest_allowed_pixel_is_found_within_eight() -> None:
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), bool)
    mask[100, 200] = mask[100, 210] = mask[0, 0] = mask[511, 511] = True
    points = np.array(
        [(200.9, 100.2), (204.5, 100.5), (206.5, 100.5), (208.5, 108.5), (219.5, 100.5), (-3.0, -3.0), (514.0, 510.0)]
    )
    x, y, hit = _nearest_pixel(points, mask)
    assert hit.tolist() == [True, True, True, True, False, True, True]
    assert x[hit].tolist() == [200, 200, 210, 210, 0, 511] and y[hit].tolist() == [100, 100, 100, 100, 0, 511]
    assert not _nearest_pixel(np.array([(520.0, 520.0)]), mask)[2].any()


def test_a_weighted_median_has_half_of_the_weight_on_either_side() -> None:
    assert _weighted_median(np.array([3.0, 1, 2]), np.array([1.0, 1, 1])) == 2
    assert _weighted_median(np.array([3.0, 1, 2]), np.array([5.0, 1, 1])) == 3
    assert _weighted_median(np.array([1.0, 2]), np.array([1.0, 1])) == 1


def detections(*rows: tuple[float, float]) -> np.ndarray:
    """The aggregate of landmark 7 from its positions along x, millimetres, and weights."""
    found = _Detections()
    for place, weight in rows:
        positions, weights = np.full((478, 3), np.nan), np.zeros(478)
        positions[7], weights[7] = (place / 1000, 0, 0), weight
        found.add(positions, weights)
    result = _aggregate(found)
    assert np.isnan(np.delete(result, 7, 0)).all()
    return 1000 * result[7]


def test_detections_are_averaged_without_those_that_are_far_from_the_others() -> None:
    assert np.isnan(_aggregate(_Detections())).all()
    assert np.isnan(detections((1, 1), (1, 1), (5, 0))).all(), "two detections are not enough"
    assert detections((1, 1), (2, 1), (3, 1))[0] == pytest.approx(2)
    assert detections((1, 1), (2, 1), (3, 2))[0] == pytest.approx(2.25)
    # Half of them lie within 1 mm of the median, so that one at 2.5 mm counts and one at 3 mm does not.
    assert detections((0, 1), (0, 1), (1, 1), (-1, 1), (2.5, 1))[0] == pytest.approx(0.5)
    assert detections((0, 1), (0, 1), (1, 1), (-1, 1), (3, 1))[0] == pytest.approx(0)
    # Where most agree exactly, those within a millimetre still count.
    assert detections((0, 1), (0, 1), (0, 1), (0.9, 1))[0] == pytest.approx(0.225)
    assert detections((0, 1), (0, 1), (0, 1), (1.1, 1))[0] == pytest.approx(0)
    assert detections((0, 1), (5.9, 1), (11.8, 1))[0] == pytest.approx(5.9)
    assert np.isnan(detections((0, 1), (6.1, 1), (12.2, 1))).all(), "half of them lie more than 6 mm apart"


# --- the reference surface


@pytest.fixture(scope="module")
def surface() -> _Surface:
    return _Surface(with_eyeballs(ball_head()))


def test_the_reference_surface_has_its_mouth_open_where_it_can_be(surface: _Surface) -> None:
    assert surface.can_open and surface.opening == 0.16
    still = surface.posed(np.zeros(3), 0.0)
    np.testing.assert_allclose(still, surface.model.template, atol=1e-6)
    assert 0.003 < np.abs(surface.reference - still).max() < 0.02
    unbound = np.zeros_like(surface.model.skinning)
    unbound[:, 0] = 1
    closed = _Surface(replace(surface.model, skinning=unbound))
    assert (
        not closed.can_open and closed.opening == 0 and np.allclose(closed.reference, surface.model.template, atol=1e-6)
    )
    assert surface.centre == pytest.approx((0, 0, surface.model.template[-8:, 2].mean() - 0.03), abs=2e-3)
    assert _Surface(ball_head()).centre == pytest.approx((0, 0, 0), abs=1e-3)


def test_skin_and_eyes_are_told_apart_by_all_three_corners(surface: _Surface) -> None:
    model = surface.model
    inside = _faces_within(model, "eyes")
    assert inside.sum() == 8 and inside[-8:].all() and np.array_equal(surface.is_eye, inside)
    corner = replace(model, regions=dict(model.regions) | {"mouth_inside": model.faces[5][:2]})
    assert not _faces_within(corner, "mouth_inside").any()
    whole = replace(model, regions=dict(model.regions) | {"mouth_inside": model.faces[5]})
    assert np.flatnonzero(_faces_within(whole, "mouth_inside")).tolist() == [5]
    assert not _Surface(whole).is_skin[5] and surface.is_skin[5] and not surface.is_skin[-8:].any()


def test_landmarks_are_placed_on_skin_that_was_seen_and_irises_on_eyes(surface: _Surface) -> None:
    model = surface.model
    points = np.full((478, 3), np.nan)
    middle = surface.reference[model.faces].mean(1)
    points[0], points[1], points[470] = middle[20], middle[-2], middle[20]
    surface.was_visible[:] = False
    faces, barycentric = surface.nearest(points)
    assert faces[0] == -1 and faces[1] == -1 and faces[470] >= len(model.faces) - 8, "no skin was seen"
    surface.was_visible[10:40] = True
    faces, barycentric = surface.nearest(points)
    assert faces[0] == 20 and barycentric[0] == pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=1e-3)
    assert faces[1] in range(10, 40) and (faces[2:470] == -1).all() and faces[470] >= len(model.faces) - 8
    rest = surface.to_rest(points)
    np.testing.assert_allclose(rest[0], model.template[model.faces[20]].mean(0), atol=1e-5)
    assert np.isnan(rest[2]).all()


def test_a_symmetric_head_gets_symmetric_landmarks(surface: _Surface) -> None:
    mirror = mirror_landmarks()
    points = np.random.default_rng(0).normal(0, 0.05, (478, 3))
    points[3] = np.nan
    found = surface.symmetrised(points)
    np.testing.assert_allclose(found, found[mirror] * (-1, 1, 1))
    assert np.isnan(found[3]).all() and np.isnan(found[mirror[3]]).all()
    assert found[10] == pytest.approx((points[10] + points[mirror[10]] * (-1, 1, 1)) / 2)
    turned = replace(
        surface.model,
        template=surface.model.template @ np.array([(0.9, 0.3, 0), (-0.3, 0.9, 0), (0, 0, 1)], np.float32),
    )
    lopsided = _Surface(replace(turned, template=(turned.template + (0.01, 0, 0)).astype(np.float32)))
    assert np.array_equal(lopsided.symmetrised(points), points, equal_nan=True)


def test_views_are_near_frontal_in_every_third_and_open_in_every_second_image(surface: _Surface) -> None:
    views = list(_views(surface, 12, 0.7, np.random.default_rng(0)))
    assert [view.opened for view in views] == [False, True] * 6
    assert all(abs(view.yaw) <= np.radians(8) for view in views[::3])
    assert max(abs(view.yaw) for view in views) > np.radians(8) and max(abs(v.yaw) for v in views) <= np.radians(35)
    for view in views:
        assert np.linalg.norm(view.light) == pytest.approx(1) and view.light[2] < 0
        assert view.vertices[:, 2].mean() == pytest.approx(0.7, abs=0.1)
        assert (view.skin[:-1] > view.skin[1:]).all() and view.skin.max() <= 0.88
    # Every fourth is the template itself.
    extents = [np.ptp(view.vertices, axis=0).max() for view in views]
    assert extents[0] == pytest.approx(np.ptp(surface.model.template, axis=0).max(), abs=0.003)
    plain = list(_views(surface, 12, 0.0, np.random.default_rng(0)))
    turned = [np.sort(np.linalg.norm(view.vertices - view.vertices.mean(0), axis=1)) for view in plain[::2]]
    assert all(np.allclose(turned[0], other, atol=1e-5) for other in turned), "no other identity without deviation"
    assert landmark_embedding.IMAGE_SIZE == 512


# --- ARKit's shapes


def test_heads_that_share_twenty_landmarks_correspond(monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        pass

    def stop(*_: object) -> None:
        raise Enough

    monkeypatch.setattr(arkit, "_opened", stop)
    inner = np.setdiff1d(np.flatnonzero(load_head().landmark_faces >= 0), FACE_OVAL)
    inner = inner[inner < SURFACE_COUNT]
    model = with_landmarks(ball_head(), 0)
    assert MIN_LANDMARKS == 20
    for count, error in ((20, Enough), (19, EffigyError)):
        faces = np.full(478, -1, np.int32)
        faces[inner[:count]] = np.arange(10, 10 + count)
        # The oval and the irises do not count.
        faces[FACE_OVAL] = faces[SURFACE_COUNT:] = 5
        with pytest.raises(error):
            transferred_shapes(replace(model, landmark_faces=faces))


def test_the_jaw_is_fitted_to_what_only_it_moves() -> None:
    model = ball_head()
    # What it moves only in part is left out, as is a vertex without weight.
    skinning = model.skinning.copy()
    skinning[:, JAW] = np.where(skinning[:, JAW] > 0.9, 1, 0.5 * skinning[:, JAW])
    model = replace(model, skinning=skinning)
    joint = model.joint_regressor[JAW].astype(np.float64) @ model.template
    angle = 0.25
    turn = np.array([(1, 0, 0), (0, np.cos(angle), -np.sin(angle)), (0, np.sin(angle), np.cos(angle))])
    bound = model.skinning[:, JAW].astype(np.float64)[:, None]
    delta = bound * ((model.template - joint) @ turn.T - (model.template - joint))
    jaw, remaining = arkit._fit_jaw(model, delta, np.ones(len(delta)))
    assert jaw == pytest.approx((angle, 0, 0), abs=1e-4) and remaining.max() < 1e-5
    still, remaining = arkit._fit_jaw(model, delta, np.zeros(len(delta)))
    assert not still.any() and np.allclose(remaining, np.linalg.norm(delta, axis=1))


def test_a_map_of_named_shapes_reads_back_what_it_applied() -> None:
    mapping = arkit.arkit_map(load_head())
    random = np.random.default_rng(0)
    channels = random.uniform(0, 1, (4, 52))
    left, right = (arkit.ARKIT_NAMES.index(name) for name in ("jawLeft", "jawRight"))
    channels[:2, left] = channels[2:, right] = 0
    back = mapping.read(*mapping.applied(channels))
    jaws = [arkit.ARKIT_NAMES.index(name) for name in JAW_SHAPES]
    np.testing.assert_allclose(np.delete(back, jaws, 1), np.delete(channels, jaws, 1), atol=0.01)
    # Left and right are not quite opposite turns of the jaw.
    np.testing.assert_allclose(back[:, jaws], channels[:, jaws], atol=0.08)
    opened = mapping.read(np.zeros((1, 52)), -0.5 * mapping.jaw[[arkit.ARKIT_NAMES.index("jawOpen")]])
    assert opened[0, arkit.ARKIT_NAMES.index("jawOpen")] == pytest.approx(-0.5, abs=0.01)
    assert mapping.read(-np.ones((1, 52)), np.zeros((1, 3))).min() == 0
