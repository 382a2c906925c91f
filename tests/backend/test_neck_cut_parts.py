"""The steps of cutting the body away, on masks of a few pixels whose results are known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from backend.head.formats import load_head
from backend.tracking.after.neck_cut import (
    NeckCutter,
    _above,
    _connected,
    _hair_columns,
    _pieces_without_hair,
    _reaching,
    _shoulders,
    _with_soft_edge,
)

SIDE = 256
INTRINSICS = np.array(((400.0, 0, 128), (0, 400.0, 128), (0, 0, 1)))


def mask(text: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in line] for line in text.split()])


def test_what_lies_above_an_edge_is_read_upwards_and_ends_at_the_image() -> None:
    body = mask("#.#. .##. ##.#")
    above, indices = _above(np.array((2, 1, 2, 3)), body, 2)
    assert above.tolist() == [[False, False, True, True], [True, False, True, False]]
    assert indices[0].tolist() == [4, 1, 6, 11]
    assert indices[1].tolist() == [0, 1, 2, 7], "what would lie above the image is not the person"


def test_shoulders_reach_up_to_the_rise_and_stop_at_a_gap_at_hair_and_without_an_edge() -> None:
    #                edge: row 5 in all columns but the last
    body = mask("#.#.#.# #.#.#.# #.#.#.# ..#.#.# #.#.#.# ####.##")
    edge = np.array((5, 5, 5, 5, 5, 5, 6))
    hair = np.array((0, 0, 0, 0, 1, 0, 0), bool)
    found = _shoulders(edge, body, hair, 3, 1)
    # Dilated by one column to either side: column 0 stands one pixel high, column 2 three.
    assert found.tolist() == [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]
    taller = _shoulders(edge, body, hair, 3, 3)
    assert taller[1:4, 2].all() and not taller[0, 2] and taller[5, 2], "the soft edge extends above and below"


def hair_of(columns: dict[range, int], neck: range = range(0), width: int = 60, gap: int = 5) -> np.ndarray:
    """The hair columns of an edge in row 30, with a rise of 10, where `columns` stand that many pixels high."""
    body, covered = np.zeros((40, width), bool), np.zeros((40, width), bool)
    for across, height in columns.items():
        body[30 - height : 30, across.start : across.stop] = True
    covered[20:40, neck.start : neck.stop] = True
    return np.flatnonzero(_hair_columns(np.full(width, 30), body, covered, 10, gap))


def test_hair_goes_on_upwards_for_more_than_a_shoulder_rises() -> None:
    assert hair_of({range(10, 25): 10}).tolist() == list(range(10, 25))
    assert not len(hair_of({range(10, 25): 9})), "a shoulder"
    assert not len(hair_of({range(10, 12): 20})), "a streak"
    assert hair_of({range(10, 20): 10, range(23, 33): 10}).tolist() == list(range(10, 33)), "a narrow gap is hair"
    assert hair_of({range(10, 20): 10, range(27, 37): 10}).tolist() == [*range(10, 20), *range(27, 37)]
    assert hair_of({range(10, 20): 10}, neck=range(22, 40)).tolist() == list(range(10, 22)), "up to the neck"
    assert not len(hair_of({}, neck=range(22, 40)))


def test_columns_without_an_edge_have_no_hair() -> None:
    body = np.ones((40, 60), bool)
    edge = np.where(np.arange(60) < 30, 30, 40)
    assert np.flatnonzero(_hair_columns(edge, body, np.zeros_like(body), 10, 5)).tolist() == list(range(30))


def test_a_piece_of_the_flare_is_cut_unless_hair_hangs_beside_it() -> None:
    flare = np.zeros((20, 60), bool)
    flare[5:10, 10:20] = flare[12:15, 40:50] = True
    flare[10, 20] = True  # touches the first at a corner, and is one piece with it
    hair = np.zeros(60, bool)
    assert np.array_equal(_pieces_without_hair(flare, hair, 4), flare)
    for columns, stays in ((slice(24, 26), True), (slice(23, 25), False), (slice(5, 7), True), (slice(6, 8), False)):
        beside = hair.copy()
        beside[columns] = True
        found = _pieces_without_hair(flare, beside, 4)
        # Two columns within four of the piece, half of that gap, are hair beside it; one is not.
        assert bool(found[7, 15]) == stays and found[13, 45], columns
    both = hair.copy()
    both[22:24] = True
    found = _pieces_without_hair(flare, both, 4)
    assert not found[7, 15] and not found[10, 20] and found[13, 45]
    assert not _pieces_without_hair(np.zeros_like(flare), hair, 4).any()


def test_only_what_is_connected_to_the_head_stays_with_its_rim() -> None:
    side = 200
    kept, matte, head = (
        np.ones((side, side), np.uint8),
        np.zeros((side, side), np.uint8),
        np.zeros((side, side), np.uint8),
    )
    matte[50:100, 50:100] = 255  # the head's piece, with a faint rim of ten pixels
    matte[40:110, 40:50] = 60
    matte[150:170, 150:170] = 255  # another piece
    matte[120:130, 60:70] = 255
    head[60:90, 60:90] = head[122:124, 62:64] = 1
    kept[99] = 0
    found = _connected(kept, matte, head)
    assert found[60:95, 55:95].all() and found[125, 65] and not found[155, 155] and not found[99].any()
    # Faint matte stays up to 0.015 of the side from what is connected: three pixels here.
    assert found[70, 47:50].all() and not found[70, 46]
    assert not found[0, 0]


def test_a_cut_is_soft_and_leaves_whole_rows_as_they_are() -> None:
    matte = np.full((400, 250), 200, np.uint8)
    matte[:100] = 77
    kept = np.ones_like(matte)
    assert np.array_equal(_with_soft_edge(matte, kept), matte)
    kept[250:] = 0
    soft = _with_soft_edge(matte, kept)
    assert np.array_equal(soft[:230], matte[:230]) and not soft[265:].any()
    # A Gaussian of one pixel, 0.004 of the width.
    expected = 200 * cv2.GaussianBlur(kept.astype(np.float64), (0, 0), 1.0)
    assert np.abs(soft[240:260] - expected[240:260]).max() <= 2
    assert soft[249, 100] == pytest.approx(200 * 0.69, abs=4) and soft[250, 100] == pytest.approx(200 * 0.31, abs=4)


@pytest.fixture(scope="module")
def cutter() -> NeckCutter:
    return NeckCutter(load_head())


def placed(cutter: NeckCutter, yaw: float = 0.0, distance: float = 0.8) -> np.ndarray:
    """The mean head at rest in the camera, turned by `yaw` degrees."""
    angle = np.radians(yaw)
    turn = np.array(((np.cos(angle), 0, np.sin(angle)), (0, 1, 0), (-np.sin(angle), 0, np.cos(angle))))
    return (load_head().template @ turn.T) * (1, -1, -1) + (0, 0, distance)


@pytest.mark.parametrize("yaw", (20, 30, 60, 90, -20, -30, -60, -90, 180))
def test_chest_and_shoulder_lie_before_the_throat_of_a_head_turned_by_more_than_25_degrees(
    cutter: NeckCutter, yaw: int
) -> None:
    vertices = placed(cutter, yaw)
    columns = np.flatnonzero(cutter._before_the_throat(vertices, INTRINSICS, SIDE))
    if abs(yaw) in (20, 180):
        assert not len(columns)
        return
    side = np.sign(yaw)
    waist = vertices[cutter._waist]
    throat = waist[(side * waist[:, 0]).argmax()]
    start = int(np.round(400 * throat[0] / throat[2] + 128 - 0.5))
    assert columns.tolist() == (list(range(start, SIDE)) if side > 0 else list(range(start + 1)))
    beyond = vertices + np.array((side * 5.0, 0, 0))
    assert len(np.flatnonzero(cutter._before_the_throat(beyond, INTRINSICS, SIDE))) == 0, "beyond the image"
    behind = vertices - np.array((side * 5.0, 0, 0))
    assert cutter._before_the_throat(behind, INTRINSICS, SIDE).all()


def test_a_nodding_head_is_not_turned_aside_and_one_without_lips_not_either(cutter: NeckCutter) -> None:
    vertices = placed(cutter, 20)
    nodded = vertices.copy()
    nodded[cutter._lips, 1] += 0.3
    assert not cutter._before_the_throat(nodded, INTRINSICS, SIDE).any()
    for name in ("_lips", "_ears", "_waist"):
        few = SimpleNamespace(_lips=cutter._lips, _ears=cutter._ears, _waist=cutter._waist)
        setattr(few, name, getattr(few, name)[:2])
        assert not NeckCutter._before_the_throat(few, placed(cutter, 90), INTRINSICS, SIDE).any()


def test_the_face_s_row_lies_between_lips_and_ears(cutter: NeckCutter) -> None:
    vertices = placed(cutter)
    rows = [128 + 400 * vertices[part, 1].mean() / vertices[part, 2].mean() for part in (cutter._lips, cutter._ears)]
    row = cutter._face_row(vertices, INTRINSICS)
    assert min(rows) + 5 < row < max(rows) - 5 and row == pytest.approx(sum(rows) / 2, abs=2)


def test_a_run_of_columns_reaches_a_row_where_enough_of_it_stands_up_to_it_without_a_gap() -> None:
    body = np.zeros((40, 40), bool)
    body[5:30, 2:6] = True  # four columns up to row 5, and a low one beside them
    body[20:30, 6:9] = True
    body[5:30, 12:14] = True  # too narrow
    body[11:30, 20:26] = True  # too low by one
    body[5:30, 30:36] = True
    body[15, 30:36] = False  # a gap
    edge = np.full(40, 30)
    columns = body[29].copy()
    assert np.flatnonzero(_reaching(edge, body, columns, 10, 3)).tolist() == list(range(2, 9))
    assert np.flatnonzero(_reaching(edge, body, columns, 11, 2)).tolist() == [*range(2, 9), 12, 13, *range(20, 26)]
    columns[6:9] = False
    assert np.flatnonzero(_reaching(edge, body, columns, 10, 3)).tolist() == list(range(2, 6)), "of the columns alone"
    edge[12:14] = 40
    assert not _reaching(edge, body, np.zeros(40, bool), 10, 3).any()


def test_the_neck_is_continued_as_the_hull_of_its_waist_and_of_that_three_times_further_down(
    cutter: NeckCutter,
) -> None:
    vertices = placed(cutter).astype(np.float64)
    prism = cutter._prism(vertices, INTRINSICS, SIDE, SIDE)
    waist = vertices[cutter._waist]
    down = vertices[cutter._ring].mean(0) - waist.mean(0)
    corners = np.concatenate((waist, waist + 3 * down)) @ INTRINSICS.T
    corners = np.round(corners[:, :2] / corners[:, 2:] - 0.5).astype(int)
    rows, columns = np.nonzero(prism)
    assert (rows.min(), columns.min(), columns.max()) == (corners[:, 1].min(), corners[:, 0].min(), corners[:, 0].max())
    assert rows.max() == min(corners[:, 1].max(), SIDE - 1) and rows.max() - rows.min() > 20
    assert set(np.unique(prism)) == {0, 1}
    few = SimpleNamespace(_waist=cutter._waist[:2], _ring=cutter._ring)
    assert NeckCutter._prism(few, vertices, INTRINSICS, SIDE, SIDE).all(), "without a waist all of the flare stays"


def test_the_flare_ends_three_and_a_half_centimetres_above_the_ring(cutter: NeckCutter) -> None:
    model = load_head()
    ring = model.template[cutter._ring].astype(np.float64)
    up = np.linalg.svd(ring - ring.mean(0))[2][2]
    height = (model.template - ring.mean(0)) @ up
    height *= np.sign(height.mean())
    neck = np.isin(np.arange(len(height)), np.concatenate((model.regions["neck"], cutter._ring)))
    waist = neck & (height >= 0.035) & (height < 0.05)
    assert np.array_equal(cutter._waist, np.flatnonzero(waist)) and 3 < waist.sum() < neck.sum()
    kinds = np.full(len(model.faces), 1)
    kinds[~neck[model.faces].any(1)] = 3
    kinds[(neck & (height < 0.035))[model.faces].any(1)] = 2
    assert np.array_equal(cutter._kind[:-1], kinds) and cutter._kind[-1] == 0 and set(kinds) == {1, 2, 3}


def test_a_head_with_inner_sides_outwards_is_cut_like_any(cutter: NeckCutter) -> None:
    model = load_head()
    turned = NeckCutter(replace(model, faces=model.faces[:, ::-1].copy()))
    assert np.array_equal(turned._faces, cutter._faces)


def test_the_inside_of_the_head_seen_through_the_open_neck_covers_nothing(cutter: NeckCutter) -> None:
    """From below, the camera looks into the head: what it sees there is behind the body, which hangs from the ring."""
    model = load_head()
    angle = np.radians(-80)
    turn = np.array(((1, 0, 0), (0, np.cos(angle), -np.sin(angle)), (0, np.sin(angle), np.cos(angle))))
    vertices = ((model.template @ turn.T) * (1, -1, -1) + (0, 0, 0.7)).astype(np.float64)
    ring = vertices[cutter._ring]
    middle = ring.mean(0) @ INTRINSICS.T
    column, row = (middle[:2] / middle[2]).astype(int)
    matte = cutter.cut(np.full((SIDE, SIDE), 255, np.uint8), vertices, INTRINSICS)
    assert matte[row, column] == 0


def test_the_torso_hangs_from_the_front_of_the_ring_and_sixty_centimetres_to_both_sides() -> None:
    """A level ring 2 m away, of 20 cm, under a head: its near edge is seen below its middle."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack((0.1 * np.cos(angles), np.full(24, 0.1), 2 + 0.1 * np.sin(angles)), 1)
    vertices = np.concatenate((ring, [[0, -0.3, 2.0]]))
    cutter = SimpleNamespace(_ring=np.arange(24))
    torso = NeckCutter._torso(cutter, vertices, INTRINSICS, SIDE, SIDE)
    columns = np.flatnonzero(torso.any(0))
    top = torso.argmax(0)
    # The near edge, at 1.9 m and 10 cm below the axis; beside the ring the edge goes on at the depth of its sides.
    assert top[128] == pytest.approx(128 + 400 * 0.1 / 1.9, abs=1)
    assert top[20] == pytest.approx(128 + 400 * 0.1 / 2.0, abs=1)
    assert columns.min() == 0 and columns.max() == SIDE - 1
    narrow = np.array(((100.0, 0, 128), (0, 100.0, 128), (0, 0, 1)))
    torso = NeckCutter._torso(cutter, vertices, narrow, SIDE, SIDE)
    columns, rows = np.flatnonzero(torso.any(0)), np.flatnonzero(torso.any(1))
    assert (columns.min(), columns.max()) == pytest.approx((128 - 100 * 0.7 / 2, 128 + 100 * 0.7 / 2), abs=1.5)
    assert rows.max() == pytest.approx(128 + 100 * 0.7 / 1.9, abs=1.5)
