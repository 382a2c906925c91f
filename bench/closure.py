"""Is closed closed: lids and lips of a track against the truth of rendered people, and against what the detector saw of
real ones.

Everything is on the mesh, in millimetres along the head's up axis: the median over the middle ones of the detector's
pairs of points (`backend.correspondence.landmark_sets`). Between lids it is signed, for a lid that is shut beyond
contact lies lower than the other. The pairs between lips lie beside the rim and not on it, so a mouth's opening is
counted from the person's own mouth at rest, which is shut. A blink counts as found where the track's eyeBlink is at
least a half while the truth's is 0.7 or more, and as invented where the truth's is below 0.3.
"""

from __future__ import annotations

import numpy as np
import torch

from backend.correspondence.landmark_sets import LID_PAIRS, LIP_PAIRS
from backend.footage.detector import SCORE_NAMES
from backend.formats.capture import Capture
from backend.formats.track import Track
from backend.head.forward import Head, landmarks
from backend.head.model import HeadModel
from backend.tracking.observe.gap_closure import landmark_gap

SHUT, OPEN = 0.7, 0.3
"""Of eyeBlink in the truth."""
FOUND = 0.5
"""Of eyeBlink in the track."""
MET = 0.5
"""Millimetres of true gap below which lips meet."""
_BLINKS = ("eyeBlinkLeft", "eyeBlinkRight")


def lid_gaps(track: Track, model: HeadModel) -> np.ndarray:
    """(F, 2) of the left and the right eye; 0 is contact."""
    points = _heights(model, track.identity, track.expression, track.rotations)
    return np.stack([_gap(points, LID_PAIRS[side][:3]) for side in ("left", "right")], 1)


def lip_openings(track: Track, model: HeadModel) -> np.ndarray:
    """(F,); 0 is contact."""
    rest = _heights(model, track.identity, track.expression[:1] * 0, track.rotations[:1] * 0)
    posed = _heights(model, track.identity, track.expression, track.rotations)
    return _gap(posed, LIP_PAIRS[:5], _gap(rest, LIP_PAIRS[:5], each=True))


def _heights(model: HeadModel, *parts: np.ndarray) -> np.ndarray:
    """(F, 478) of the detector's points on a posed mesh whose neck does not turn."""
    identity, expression, rotations = parts
    still = rotations * np.array((0, 0, 1, 1, 1))[:, None]
    parts = (torch.as_tensor(part, dtype=torch.float32) for part in (identity[None], expression, still))
    return 1000 * landmarks(Head(model)(*parts).vertices, model).numpy()[..., 1]


def _gap(heights: np.ndarray, pairs: np.ndarray, rest: np.ndarray | float = 0.0, each: bool = False) -> np.ndarray:
    gaps = heights[:, pairs[:, 0]] - heights[:, pairs[:, 1]] - rest
    return gaps if each else np.median(gaps, axis=1)


def lids_and_lips(track: Track, truth: Track, model: HeadModel) -> dict[str, float]:
    """Shares of blinks found and invented, over both eyes; medians of gaps in millimetres, the truth's and the
    track's.
    """
    columns = [model.expression_names.index(name) for name in _BLINKS]
    true, ours = truth.expression[:, columns], track.expression[:, columns]
    shut, open_ = true >= SHUT, true < OPEN
    lids, lips = ([measure(each, model) for each in (truth, track)] for measure in (lid_gaps, lip_openings))
    met = lips[0] < MET
    return {
        "blinks": int(shut.sum()),
        "blinks_found": _share(ours[shut] >= FOUND),
        "blinks_invented": _share(ours[open_] >= FOUND),
        "lids_shut_true_mm": _median(lids[0][shut]),
        "lids_shut_mm": _median(lids[1][shut]),
        "lids_shut_within_1mm": _share(lids[1][shut] <= 1),
        "lids_open_error_mm": _median((lids[1] - lids[0])[open_]),
        "lips_met": int(met.sum()),
        "lips_met_mm": _median(lips[1][met]),
        "lips_met_within_1mm": _share(lips[1][met] <= 1),
        "lips_open_error_mm": _median((lips[1] - lips[0])[~met]),
        "lips_open_spread_mm": _median(np.abs(lips[1] - lips[0])[~met]),
    }


def detected_contact(track: Track, capture: Capture, model: HeadModel) -> dict[str, float]:
    """A real clip: what the track does where the detector's lips meet (a gap below a fiftieth of the mouth's width) and
    where its eyeBlink score is above a half, which half-shut eyes that look down reach as well.
    """
    seen = capture.landmarks[..., :2]
    width = np.linalg.norm(seen[:, 61] - seen[:, 291], axis=-1)
    lip_gap = landmark_gap(capture.landmarks, LIP_PAIRS[:5]) / width
    met = lip_gap < 0.02
    lips, lids = lip_openings(track, model), lid_gaps(track, model)
    result = {
        "lips_met": int(met.sum()),
        "lips_met_mm": _median(lips[met]),
        "lips_met_within_1mm": _share(lips[met] <= 1),
        "lips_open_mm": _median(lips[~met]),
    }
    scores = capture.scores[:, [SCORE_NAMES.index(name) for name in _BLINKS]]
    blink = track.expression[:, [model.expression_names.index(name) for name in _BLINKS]]
    shut, open_ = scores > 0.5, scores < 0.2
    return {
        **result,
        "blinks": int(shut.sum()),
        "blinks_found": _share(blink[shut] >= FOUND),
        "lids_shut_mm": _median(lids[shut]),
        "lids_shut_within_1mm": _share(lids[shut] <= 1),
        "lids_open_mm": _median(lids[open_]),
    }


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else float("nan")


def _share(values: np.ndarray) -> float:
    return float(np.mean(values)) if values.size else float("nan")
