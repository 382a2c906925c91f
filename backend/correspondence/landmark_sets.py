"""The face detector's 478 points by what they are: which are trusted, how much, and which come in pairs.

Indices are MediaPipe's canonical face mesh (468 points, then five of each iris). "Left" is the person's own left.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ..head.model import LANDMARK_COUNT

CONTOUR: Final = np.array(
    (
        10,
        338,
        297,
        332,
        284,
        251,
        389,
        356,
        454,
        323,
        361,
        288,
        397,
        365,
        379,
        378,
        400,
        377,
        152,
        148,
        176,
        149,
        150,
        136,
        172,
        58,
        132,
        93,
        234,
        127,
        162,
        21,
        54,
        103,
        67,
        109,
    )
)
"""MediaPipe's FACE_OVAL. These points follow the visible outline, so they slide over the skin when the head turns and
no fixed place on a surface explains them. They are left out of every landmark error that is reported."""

JAW_LINE: Final = CONTOUR[8:29]
"""The contour from ear to ear by way of the chin, in order: outline of bare skin, where the rest borders on hair."""

LIPS: Final = np.array(
    (
        61,
        146,
        91,
        181,
        84,
        17,
        314,
        405,
        321,
        375,
        291,
        185,
        40,
        39,
        37,
        0,
        267,
        269,
        270,
        409,
        78,
        95,
        88,
        178,
        87,
        14,
        317,
        402,
        318,
        324,
        308,
        191,
        80,
        81,
        82,
        13,
        312,
        311,
        310,
        415,
    )
)
LEFT_LIDS: Final = np.array((263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398))
RIGHT_LIDS: Final = np.array((33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173))
BROWS: Final = np.array((276, 283, 282, 295, 285, 300, 293, 334, 296, 336, 46, 53, 52, 65, 55, 70, 63, 105, 66, 107))
RIGHT_IRIS: Final = np.arange(468, 473)
LEFT_IRIS: Final = np.arange(473, 478)
"""The detector's second iris lies in the person's left eye."""

EYE_CORNERS: Final = {"left": (362, 263), "right": (33, 133)}

LID_PAIRS: Final = {
    "left": np.array(((386, 374), (385, 380), (387, 373), (384, 381), (388, 390))),
    "right": np.array(((159, 145), (158, 153), (160, 144), (157, 154), (161, 163))),
}
"""Upper and lower lid, one above the other."""

LIP_PAIRS: Final = np.array(((13, 14), (82, 87), (312, 317), (81, 178), (311, 402), (80, 88), (310, 318)))
"""Inner edge of the upper and of the lower lip. Differences of two points cancel what both have wrong in common, so the
gap between lips or lids is known better than either place: the pairs are residuals of their own."""

PAIRS: Final = np.concatenate((LID_PAIRS["left"], LID_PAIRS["right"], LIP_PAIRS))


def point_weights() -> np.ndarray:
    """(478,) float32: trust in a point, relative to plain skin.

    Lips and lids carry the expression and the detector sees their edges; forehead and cheeks have no texture and are
    filled in by its prior; the contour is on another place of the head in every frame.
    """
    weights = np.full(LANDMARK_COUNT, 1.0, np.float32)
    weights[LIPS] = 2.0
    weights[LEFT_LIDS] = weights[RIGHT_LIDS] = 2.0
    weights[LEFT_IRIS] = weights[RIGHT_IRIS] = 2.0
    weights[CONTOUR] = 0.05
    weights[JAW_LINE] = 1.0
    return weights


def solved_points(places: np.ndarray, valid: np.ndarray, count: int) -> np.ndarray:
    """Which points the solver looks at: all that outline a feature, and skin points far from each other, `count` in
    all.

    `places` (478, 3): where the points lie on the head. The detector makes up smooth skin from few degrees of freedom,
    so taking in the rest costs time and tells nothing; the error is reported over all of them.
    """
    chosen = np.zeros(LANDMARK_COUNT, bool)
    chosen[np.concatenate((LIPS, LEFT_LIDS, RIGHT_LIDS, BROWS, LEFT_IRIS, RIGHT_IRIS, JAW_LINE, PAIRS.ravel()))] = True
    chosen &= valid
    if not chosen.any():
        chosen[np.flatnonzero(valid)[:1]] = True
    distance = np.min([np.linalg.norm(places - places[index], axis=1) for index in np.flatnonzero(chosen)], axis=0)
    distance[~valid] = 0
    while chosen.sum() < min(count, valid.sum()):
        farthest = int(distance.argmax())
        chosen[farthest] = True
        distance = np.minimum(distance, np.linalg.norm(places - places[farthest], axis=1))
    return np.flatnonzero(chosen)


def reported_points() -> np.ndarray:
    """(478,) bool: the points over which a landmark error is taken: all but the face contour."""
    reported = np.ones(LANDMARK_COUNT, bool)
    reported[CONTOUR] = False
    return reported
