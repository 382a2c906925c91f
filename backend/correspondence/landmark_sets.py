"""The face detector's 478 landmarks by what they are: features, pairs, and their weights in tracking.

Indices belong to MediaPipe's canonical face mesh: 468 landmarks on the skin, then five of each iris. "Left" is the
person's own left. This is the only table of landmark indices.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ..head.model import LANDMARK_COUNT


def _indices(text: str) -> np.ndarray:
    return np.array(text.split(), int)


SURFACE_COUNT: Final = 468
"""The first 468 landmarks lie on the skin; five for each iris follow."""

FACE_OVAL: Final = _indices(
    "10 338 297 332 284 251 389 356 454 323 361 288 397 365 379 378 400 377 "
    "152 148 176 149 150 136 172 58 132 93 234 127 162 21 54 103 67 109"
)
"""MediaPipe's FACE_OVAL, the contour of the face. The detector draws it along the visible silhouette, so these
landmarks slide over the skin when the head rotates, and have a fixed position on the surface only in a frontal view.
They are left out of every landmark error that is reported."""

JAW_LINE: Final = FACE_OVAL[8:29]
"""The face oval from ear to ear along the chin, in order. It borders on bare skin; the rest borders on hair."""

OUTER_LIPS: Final = _indices("61 185 40 39 37 0 267 269 270 409 291 375 321 405 314 17 84 181 91 146")
"""A closed polygon."""
INNER_LIPS: Final = _indices("78 191 80 81 82 13 312 311 310 415 308 324 318 402 317 14 87 178 88 95")
"""A closed polygon."""
LIPS: Final = np.concatenate((OUTER_LIPS, INNER_LIPS))

LEFT_LIDS: Final = _indices("263 249 390 373 374 380 381 382 362 466 388 387 386 385 384 398")
RIGHT_LIDS: Final = _indices("33 7 163 144 145 153 154 155 133 246 161 160 159 158 157 173")
"""Nine landmarks from the outer corner along the lower eyelid to the inner corner, then seven of the upper eyelid from
the outer corner inwards."""

BROW_EDGES: Final = {
    "left": (_indices("300 293 334 296 336"), _indices("276 283 282 295 285")),
    "right": (_indices("70 63 105 66 107"), _indices("46 53 52 65 55")),
}
"""Upper and lower edge of each brow, from the temple inwards."""
BROWS: Final = np.concatenate([edge for edges in BROW_EDGES.values() for edge in edges])

RIGHT_IRIS: Final = np.arange(468, 473)
LEFT_IRIS: Final = np.arange(473, 478)
"""The detector's second iris lies in the person's left eye."""
IRIS_MIRROR: Final = {468: 473, 469: 476, 470: 475, 471: 474, 472: 477}
"""Landmarks of the right iris -> their mirror images in the left one."""

LID_PAIRS: Final = {
    "left": np.array(((386, 374), (385, 380), (387, 373), (384, 381), (388, 390))),
    "right": np.array(((159, 145), (158, 153), (160, 144), (157, 154), (161, 163))),
}
"""Landmarks of upper and lower eyelid, one above the other."""

LIP_PAIRS: Final = np.array(((13, 14), (82, 87), (312, 317), (81, 178), (311, 402), (80, 88), (310, 318)))
"""Landmarks on the inner edges of upper and lower lip, one above the other. Errors that both landmarks of a pair have
in common cancel in their difference, so the gap between lips or eyelids is known better than the position of either:
the pairs are residuals of their own."""

PAIRS: Final = np.concatenate((LID_PAIRS["left"], LID_PAIRS["right"], LIP_PAIRS))


IBUG_68: Final = _indices(
    "162 234 93 58 172 136 149 148 152 377 378 365 397 288 323 454 389 "
    "70 63 105 66 107 336 296 334 293 300 "
    "168 197 5 4 75 97 2 326 305 "
    "33 160 158 133 153 144 362 385 387 263 373 380 "
    "61 39 37 0 267 269 291 405 314 17 84 181 "
    "78 82 13 312 308 317 14 87"
)
"""The detector's landmark at each of the 68 standard (iBUG 300-W) landmarks, in their order: jaw line from the image's
left, brows, nose bridge and base, eyes, outer lips, inner lips."""


def point_weights() -> np.ndarray:
    """(478,) float32: the weight of each landmark, relative to plain skin.

    Lips and eyelids carry the expression, and the detector sees their edges. Forehead and cheeks have no texture, and
    the detector fills them in from its training data. The face oval is on another part of the head in every frame.
    """
    weights = np.full(LANDMARK_COUNT, 1.0, np.float32)
    weights[LIPS] = 2.0
    weights[LEFT_LIDS] = weights[RIGHT_LIDS] = 2.0
    weights[LEFT_IRIS] = weights[RIGHT_IRIS] = 2.0
    weights[FACE_OVAL] = 0.05
    weights[JAW_LINE] = 1.0
    return weights


def solved_points(positions: np.ndarray, valid: np.ndarray, count: int) -> np.ndarray:
    """The indices of the `count` landmarks that the solver uses: all that outline a feature, and skin far from each
    other.

    `positions` (478, 3) are the landmarks on the head model, `valid` (478,) bool says which have one. The detector
    draws smooth skin from few degrees of freedom, so the others cost time and add nothing. Errors are reported over
    all.
    """
    chosen = np.zeros(LANDMARK_COUNT, bool)
    chosen[np.concatenate((LIPS, LEFT_LIDS, RIGHT_LIDS, BROWS, LEFT_IRIS, RIGHT_IRIS, JAW_LINE, PAIRS.ravel()))] = True
    chosen &= valid
    if not chosen.any():
        chosen[np.flatnonzero(valid)[:1]] = True
    distance = np.min(
        [np.linalg.norm(positions - positions[index], axis=1) for index in np.flatnonzero(chosen)], axis=0
    )
    distance[~valid] = 0
    while chosen.sum() < min(count, valid.sum()):
        farthest = int(distance.argmax())
        chosen[farthest] = True
        distance = np.minimum(distance, np.linalg.norm(positions - positions[farthest], axis=1))
    return np.flatnonzero(chosen)


def reported_points() -> np.ndarray:
    """(478,) bool: the landmarks over which an error is reported, all but the face oval."""
    reported = np.ones(LANDMARK_COUNT, bool)
    reported[FACE_OVAL] = False
    return reported
