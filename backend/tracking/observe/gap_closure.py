"""The confidence that eyelids and lips are closed, from the distribution of their gaps over the clip.

A millimetre between two edges is a pixel or two in the image, no more than a landmark's error, and the landmarks lie
not exactly on the edges. But a closed gap stands out from the clip's other gaps: an eye that is open most of the time
shows a tenth of its usual gap during a blink. So each gap is compared with the person's own open and closed gap.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ...correspondence.landmark_sets import LID_PAIRS, LIP_PAIRS
from ..model.frame_state import FrameState, eye_occlusion

GAP_PAIRS = (LID_PAIRS["left"][:3], LID_PAIRS["right"][:3], LIP_PAIRS[:5])
"""Left eyelids, right eyelids, lips: the middle landmark pairs, which open the widest."""
LIPS = 2
"""The index of the lips in GAP_PAIRS."""
_LIDS_OPEN_QUANTILE = 0.75
"""The quantile of a clip's eyelid gaps that is taken for the open eye's: blinks and glances down are rare."""
_LIDS_CLOSED, _LIDS_AJAR = 0.20, 0.36
"""Shares of the open gap: certainly closed up to the first, open from the second on."""
_LIPS_CLOSED, _LIPS_AJAR = 0.0009, 0.0020
"""The same for lips, in metres."""
_LOWEST_QUANTILE = 0.02
"""The quantile of a clip's gaps that is the closed gap, if it is ever closed: the detector rarely reports zero."""


def landmark_gap(landmarks: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(F,) pixels: the median distance between landmark pairs (K, 2) of landmarks (F, 478, 3)."""
    return np.median(np.linalg.norm(landmarks[:, pairs[:, 0], :2] - landmarks[:, pairs[:, 1], :2], axis=-1), axis=1)


def closure_confidence(landmarks: np.ndarray, state: FrameState, focal: Tensor, training: slice) -> np.ndarray:
    """The confidence in [0, 1] that left eyelids, right eyelids and lips are closed, (F, 3).

    `landmarks` (F, 478, 3) are NaN without a face. `focal` is in pixels. The person's open and closed gaps are learned
    from the frames `training`.
    """
    metres_per_pixel = (state.translation[:, 2] / focal).cpu().numpy()
    closed = np.stack(
        [
            _confidence(part == LIPS, landmark_gap(landmarks, pairs) * metres_per_pixel, training)
            for part, pairs in enumerate(GAP_PAIRS)
        ],
        1,
    )
    # The head's yaw can hide an eye; a hidden eye is assumed to blink together with the other one.
    closed[:, :LIPS] = np.maximum(closed[:, :LIPS], eye_occlusion(state).cpu().numpy() * closed[:, 1::-1])
    return closed


def _confidence(lips: bool, gaps: np.ndarray, training: slice) -> np.ndarray:
    """The confidence (F,) in [0, 1] that a gap is closed, from the gaps (F,) in metres, NaN without a face. Gaps of
    eyelids are compared as fractions of the open gap, those of `lips` in metres.
    """
    finite = gaps[training][np.isfinite(gaps[training])]
    if not len(finite):
        return np.zeros(len(gaps))
    lowest = np.quantile(finite, _LOWEST_QUANTILE)
    unit = 1.0 if lips else max(np.quantile(finite, _LIDS_OPEN_QUANTILE), 1e-6)
    closed, ajar = (_LIPS_CLOSED, _LIPS_AJAR) if lips else (_LIDS_CLOSED, _LIDS_AJAR)
    # The clip's smallest gaps, if they are not zero but too small to be open, are taken for this person's closed gaps.
    shift = float(np.clip(lowest / unit - closed / 2, 0, closed)) if lowest / unit < ajar else 0.0
    return np.nan_to_num((ajar + shift - gaps / unit) / (ajar - closed)).clip(0, 1)
