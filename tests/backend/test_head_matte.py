"""The body is cut away below the neck, and nothing of the head with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from backend.errors import Cancelled, EffigyError
from backend.formats.capture import load_capture, read_head_matte
from backend.head.formats import load_head
from backend.head.forward import Head
from backend.head.model import JAW, NECK, HeadModel
from backend.progress import Progress
from backend.splatting.mesh import rasterize_mesh
from backend.tracking.after.head_matte import make_head_mattes
from backend.tracking.after.neck_cut import NeckCutter

SIZE = 256
INTRINSICS = np.array([[420.0, 0, SIZE / 2], [0, 420.0, SIZE / 2], [0, 0, 1]])
EVERYTHING = np.full((SIZE, SIZE), 255, np.uint8)


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head()


@pytest.fixture(scope="module")
def cutter(model: HeadModel) -> NeckCutter:
    return NeckCutter(model)


def posed(model: HeadModel, neck: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """(N, 3) in the camera's space, 80 cm away."""
    head = Head(model)
    rotations = torch.zeros(1, 5, 3)
    rotations[0, NECK] = torch.tensor(neck)
    mean, still = torch.zeros(1, head.identity_size), torch.zeros(1, head.expression_size)
    vertices = head(mean, still, rotations).vertices[0].numpy()
    return vertices * [1, -1, -1] + [0, 0, 0.8]


def pixel(point: np.ndarray) -> tuple[int, int]:
    """The row and the column of a point in camera space."""
    x, y, z = INTRINSICS @ point
    return int(y / z), int(x / z)


def ring(model: HeadModel, vertices: np.ndarray) -> np.ndarray:
    return vertices[model.regions["boundary"]]


def test_the_body_below_the_ring_goes_and_the_neck_above_stays(model, cutter):
    vertices = posed(model)
    matte = cutter.cut(EVERYTHING, vertices, INTRINSICS)
    edge = ring(model, vertices)
    front = edge[edge[:, 2].argmin()]
    assert matte[pixel(front + [0, 0.025, 0])] == 0
    assert matte[pixel(front - [0, 0.020, 0])] == 255
    for side in (edge[:, 0].argmin(), edge[:, 0].argmax()):
        outward = np.sign(edge[side, 0])
        assert matte[pixel(edge[side] + [0.05 * outward, 0.02, 0])] == 0
    assert matte[:10].min() == 255


@pytest.mark.parametrize("neck", [(0.6, 0, 0), (0.45, 0.6, 0), (-0.3, -0.5, 0.2)], ids=["down", "down and aside", "up"])
def test_a_chin_in_front_of_the_body_is_head(model, cutter, neck):
    vertices = posed(model, neck)
    matte = cutter.cut(EVERYTHING, vertices, INTRINSICS)
    raster = rasterize_mesh(vertices, model.faces, INTRINSICS, SIZE, SIZE)
    on_jaw = (model.skinning[:, JAW] > 0.5)[model.faces].all(1)
    jaw = raster.covered & on_jaw[np.maximum(raster.face_index, 0)]
    assert jaw.sum() > 300
    assert (matte[jaw] > 240).mean() > 0.99


def test_the_cut_is_soft(model, cutter):
    matte = cutter.cut(EVERYTHING, posed(model), INTRINSICS)
    steps = np.abs(np.diff(matte.astype(int), axis=0)).max()
    assert 0 < steps < 140


def test_pieces_of_body_that_touch_no_head_are_left_out(model, cutter):
    vertices = posed(model)
    person = np.zeros_like(EVERYTHING)
    raster = rasterize_mesh(vertices, model.faces, INTRINSICS, SIZE, SIZE)
    person[raster.covered] = 255
    cv2.circle(person, (20, 60), 8, 255, -1)
    matte = cutter.cut(person, vertices, INTRINSICS)
    assert matte[60, 20] == 0
    assert matte[pixel(vertices[model.regions["face"]].mean(0) * [1, 1, 0.9])] == 255


def test_a_shoulder_beside_the_neck_goes_and_long_hair_stays(model, cutter):
    vertices = posed(model)
    edge = ring(model, vertices)
    person = np.where(rasterize_mesh(vertices, model.faces, INTRINSICS, SIZE, SIZE).covered, 255, 0).astype(np.uint8)
    level = pixel(edge.mean(0))[0]
    person[level:] = 255
    shoulder = pixel(edge[edge[:, 0].argmin()] - [0.03, 0.02, 0])
    hair = pixel(edge[edge[:, 0].argmax()] + [0.03, -0.02, 0])
    person[shoulder[0] : level, : shoulder[1] + 6] = 255
    person[level - 120 : level, hair[1] - 12 : hair[1] + 12] = 255
    matte = cutter.cut(person, vertices, INTRINSICS)
    assert matte[shoulder[0] + 2, shoulder[1]] == 0
    assert matte[hair] == 255


def test_the_neck_goes_on_as_a_prism_where_the_rig_flares_out_over_a_collar(model, cutter):
    vertices = posed(model)
    edge = ring(model, vertices)
    widest = edge[edge[:, 0].argmax()]
    inner = widest * [0.4, 1, 1] - [0, 0.010, 0]
    raster = rasterize_mesh(vertices, model.faces, INTRINSICS, SIZE, SIZE)
    collar = pixel(widest - [0.006, 0.006, 0])
    assert raster.covered[collar], "the rig covers the collar, so that only the prism can cut it"
    person = np.where(raster.covered, 255, 0).astype(np.uint8)
    person[pixel(edge.mean(0))[0] :] = 255
    matte = cutter.cut(person, vertices, INTRINSICS)
    assert matte[collar] < 30
    assert matte[pixel(inner)] == 255


def test_faint_matte_far_from_the_head_goes_and_the_hair_s_rim_stays(model, cutter):
    vertices = posed(model)
    raster = rasterize_mesh(vertices, model.faces, INTRINSICS, SIZE, SIZE)
    person = np.where(raster.covered, 255, 0).astype(np.uint8)
    top = int(np.argmax(raster.covered.any(1)))
    middle = int(np.median(np.flatnonzero(raster.covered[top])))
    person[top - 2 : top, middle - 5 : middle + 5] = 50
    person[100:103, 10:30] = 50
    matte = cutter.cut(person, vertices, INTRINSICS)
    assert not matte[100:103, 10:30].any()
    assert matte[top - 1, middle] > 40


def test_a_frame_without_a_pose_is_black(model, cutter):
    assert not cutter.cut(EVERYTHING, posed(model) * np.nan, INTRINSICS).any()


def test_a_head_without_a_neck_edge_is_refused(model):
    closed = replace(model, regions=model.regions | {"boundary": np.zeros(0, np.int32)})
    with pytest.raises(EffigyError, match="no open edge"):
        NeckCutter(closed)


def test_every_frame_of_a_capture_gets_its_matte(tmp_path: Path):
    from small_capture import make_small_capture

    capture, track, model = make_small_capture(tmp_path, frames=5)
    for path in (capture.folder / "head_mattes").iterdir():
        path.unlink()
    make_head_mattes(capture, track, model)
    assert all(read_head_matte(capture, index).any() for index in range(capture.frame_count))


def test_a_track_of_the_same_crop_at_another_size_cuts_alike(tmp_path: Path):
    from small_capture import make_small_capture

    capture, track, model = make_small_capture(tmp_path, frames=3)
    make_head_mattes(capture, track, model)
    capture = load_capture(capture.folder)
    before = [read_head_matte(capture, index) for index in range(3)]
    intrinsics = track.intrinsics * np.array([[2.0], [2.0], [1.0]], np.float32)
    make_head_mattes(capture, replace(track, intrinsics=intrinsics, size=2 * track.size), model)
    capture = load_capture(capture.folder)
    assert all(np.array_equal(read_head_matte(capture, index), matte) for index, matte in enumerate(before))
    assert any(0 < (matte > 0).mean() < 0.9 for matte in before)


def test_a_track_that_is_stopped_leaves_the_mattes_of_the_one_before(tmp_path: Path):
    from small_capture import make_small_capture

    class Stopped(Progress):
        def cancelled(self) -> bool:
            return True

    capture, track, model = make_small_capture(tmp_path, frames=5)
    before = [read_head_matte(capture, index) for index in range(capture.frame_count)]
    with pytest.raises(Cancelled):
        make_head_mattes(capture, track, model, Stopped())
    assert all((read_head_matte(capture, index) == matte).all() for index, matte in enumerate(before))
    assert sorted(path.name for path in capture.folder.iterdir() if path.is_dir()) == [
        "frames",
        "head_mattes",
        "mattes",
    ]


@pytest.mark.parametrize("yaw", [45, 60, 75, 90, -45, -60, -75, -90])
@pytest.mark.parametrize("nod", [0.0, 0.5], ids=["level", "down"])
def test_a_chest_before_the_chin_of_a_head_that_looks_aside_goes(model, cutter, yaw, nod):
    """The chest rises by 8 cm above the throat, or up to the chin."""
    vertices, covered, before = turned(model, yaw, nod)
    side = 1 if before[-1] else -1
    edge = ring(model, vertices)
    throat = edge[(side * edge[:, 0]).argmax()]
    face = vertices[model.regions["face"]]
    top = max(pixel(throat - [0, 0.08, 0])[0], pixel(face[face[:, 1].argmax()])[0])
    person = np.where(covered, 255, 0).astype(np.uint8)
    person[top:, before] = 255
    person[pixel(throat)[0] :] = 255
    matte = cutter.cut(person, vertices, INTRINSICS)
    shirt = (person > 0) & ~cv2.dilate(covered.view(np.uint8), np.ones((9, 9), np.uint8)).view(bool) & before
    assert shirt.sum() > 1500
    assert (matte[shirt] > 127).mean() < 0.05
    assert (matte[covered & (np.arange(SIZE)[:, None] < top - 20)] > 240).mean() > 0.99


@pytest.mark.parametrize("yaw", [35, 50, -35, -50])
def test_hair_beyond_the_far_cheek_of_a_head_that_looks_aside_stays(model, cutter, yaw):
    """It falls from the temple to the chest, which is cut."""
    vertices, covered, before = turned(model, yaw, 0)
    temple = np.flatnonzero(covered[pixel(vertices[model.regions["ears"]].mean(0))[0]])
    cheek = temple.max() if before[-1] else temple.min()
    edge = ring(model, vertices)
    across = np.arange(SIZE)
    hair = before & (np.abs(across - cheek) < 10)
    person = np.where(covered, 255, 0).astype(np.uint8)
    level = pixel(edge[edge[:, 2].argmin()])[0]
    person[level:] = 255
    person[pixel(vertices[model.regions["ears"]].mean(0))[0] :, hair] = 255
    matte = cutter.cut(person, vertices, INTRINSICS)
    beside = (person > 0) & ~covered & hair & (np.arange(SIZE)[:, None] < level - 10)
    assert beside.sum() > 300 and (matte[beside] > 240).mean() > 0.9
    assert not matte[level + 12 :, before & (np.abs(across - cheek) > 30)].any()


def with_chest(model: HeadModel) -> HeadModel:
    """The head model with shoulders and a chest below its neck, 20 cm deep, which are of the region neck."""
    loop = model.regions["boundary"]
    centre = model.template[loop].mean(0)
    loop = loop[np.argsort(np.arctan2(*(model.template[loop] - centre)[:, [0, 2]].T))]
    source, places, faces = [np.arange(len(model.template))], [model.template], [model.faces]
    above = loop
    for level, (width, depth, down) in enumerate(
        ((1.6, 1.2, 0.02), (2.6, 1.4, 0.04), (3.0, 1.6, 0.1), (3.0, 1.6, 0.2))
    ):
        below = len(model.template) + level * len(loop) + np.arange(len(loop))
        source.append(loop)
        places.append(centre + (model.template[loop] - centre) * (width, 0, depth) - np.array((0, down, 0)))
        following = np.roll(above, -1), np.roll(below, -1)
        faces += [np.stack((above, below, following[0]), 1), np.stack((following[0], below, following[1]), 1)]
        above = below
    source = np.concatenate(source)
    bases = ("shape_basis", "expression_basis", "pose_basis", "skinning")
    added = np.arange(len(model.template), len(source), dtype=np.int32)
    return replace(
        model,
        template=np.concatenate(places).astype(np.float32),
        faces=np.concatenate(faces).astype(np.int32),
        joint_regressor=np.pad(model.joint_regressor, ((0, 0), (0, len(added)))),
        regions=model.regions | {"neck": np.union1d(model.regions["neck"], added), "boundary": above.astype(np.int32)},
        **{name: getattr(model, name)[source] for name in bases},
    )


@pytest.mark.parametrize("yaw", [0, 40, -70])
def test_a_head_model_with_shoulders_is_cut_where_the_neck_ends(model, cutter, yaw):
    chested = with_chest(model)
    whole = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
    vertices = (posed(chested) - [0, 0, 0.8]) @ whole.T + [0, 0, 0.8]
    covered = rasterize_mesh(vertices, chested.faces, INTRINSICS, SIZE, SIZE).covered
    person = np.where(covered, 255, 0).astype(np.uint8)
    expected = cutter.cut(person, vertices[: len(model.template)], INTRINSICS)
    matte = NeckCutter(chested).cut(person, vertices, INTRINSICS)
    assert (person > 127).sum() > (expected > 127).sum() + 5000, "it covers shoulders"
    assert ((matte > 127) != (expected > 127)).sum() < 250


def turned(model: HeadModel, yaw: float, nod: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A head on a body that looks aside by `yaw` degrees: vertices, the pixels it covers, the columns before the
    throat.
    """
    whole = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
    vertices = (posed(model, (nod, 0, 0)) - [0, 0, 0.8]) @ whole.T + [0, 0, 0.8]
    covered = rasterize_mesh(vertices, model.faces, INTRINSICS, SIZE, SIZE).covered
    edge = ring(model, vertices)
    side = np.sign(vertices[model.regions["lips"]].mean(0)[0] - edge[:, 0].mean())
    throat = pixel(edge[(side * edge[:, 0]).argmax()])[1]
    return vertices, covered, side * (np.arange(SIZE) - throat) > 0
