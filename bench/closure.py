"""Closure of lids and lips in a track, compared with the ground truth of rendered people or the detector's landmarks.

Gaps are measured on the mesh in millimetres along the head's up axis: the median over the central pairs of landmarks
(`backend.correspondence.landmark_sets`). A gap between lids is negative where the upper lid lies below the lower one.
The pairs of lip landmarks lie beside the lips' contact line, so a mouth's opening is measured relative to the same
person's mouth at rest, which is closed. A blink counts as found where the track's eyeBlink is at least 0.5 while the
ground truth's is 0.7 or more, and as invented where the ground truth's is below 0.3.
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
"""Limits of the ground truth's eyeBlink for closed and for open eyes."""
FOUND = 0.5
"""Least eyeBlink of the track for a found blink."""
CONTACT = 0.5
"""Millimetres: the lips of the ground truth touch where their gap is smaller."""
_BLINKS = ("eyeBlinkLeft", "eyeBlinkRight")


def lid_gaps(track: Track, model: HeadModel) -> np.ndarray:
    """(F, 2) millimetres between the lids of the left and the right eye; 0 is contact."""
    points = _heights(model, track.identity, track.expression, track.rotations)
    return np.stack([_gap(points, LID_PAIRS[side][:3]) for side in ("left", "right")], 1)


def lip_openings(track: Track, model: HeadModel) -> np.ndarray:
    """(F,) millimetres between the lips; 0 is contact."""
    rest = _heights(model, track.identity, track.expression[:1] * 0, track.rotations[:1] * 0)
    posed = _heights(model, track.identity, track.expression, track.rotations)
    return _gap(posed, LIP_PAIRS[:5], _gap(rest, LIP_PAIRS[:5], each=True))


def _heights(model: HeadModel, *parts: np.ndarray) -> np.ndarray:
    """(F, 478) heights in millimetres of the landmarks on the posed mesh without rotations of root and neck."""
    identity, expression, rotations = parts
    without_neck = rotations * np.array((0, 0, 1, 1, 1))[:, None]
    parts = (torch.as_tensor(part, dtype=torch.float32) for part in (identity[None], expression, without_neck))
    return 1000 * landmarks(Head(model)(*parts).vertices, model).numpy()[..., 1]


def _gap(heights: np.ndarray, pairs: np.ndarray, rest: np.ndarray | float = 0.0, each: bool = False) -> np.ndarray:
    gaps = heights[:, pairs[:, 0]] - heights[:, pairs[:, 1]] - rest
    return gaps if each else np.median(gaps, axis=1)


def lids_and_lips(track: Track, truth: Track, model: HeadModel) -> dict[str, float]:
    """Shares of blinks found and invented, over both eyes, and median gaps in millimetres of ground truth and track."""
    columns = [model.expression_names.index(name) for name in _BLINKS]
    true, ours = truth.expression[:, columns], track.expression[:, columns]
    shut, open_ = true >= SHUT, true < OPEN
    lids, lips = ([measure(each, model) for each in (truth, track)] for measure in (lid_gaps, lip_openings))
    touching = lips[0] < CONTACT
    return {
        "blinks": int(shut.sum()),
        "blinks_found": _share(ours[shut] >= FOUND),
        "blinks_invented": _share(ours[open_] >= FOUND),
        "lids_shut_true_mm": _median(lids[0][shut]),
        "lids_shut_mm": _median(lids[1][shut]),
        "lids_shut_within_1mm": _share(lids[1][shut] <= 1),
        "lids_open_error_mm": _median((lids[1] - lids[0])[open_]),
        "lips_met": int(touching.sum()),
        "lips_met_mm": _median(lips[1][touching]),
        "lips_met_within_1mm": _share(lips[1][touching] <= 1),
        "lips_open_error_mm": _median((lips[1] - lips[0])[~touching]),
        "lips_open_spread_mm": _median(np.abs(lips[1] - lips[0])[~touching]),
    }


def detected_contact(track: Track, capture: Capture, model: HeadModel) -> dict[str, float]:
    """Closure in a clip without ground truth, in frames where the detector reports closed lips or eyes.

    Lips count as closed where the landmarks' gap is below a fiftieth of the mouth's width, eyes where the detector's
    eyeBlink score is above 0.5. Half-closed eyes that look down also reach that score.
    """
    detected = capture.landmarks[..., :2]
    width = np.linalg.norm(detected[:, 61] - detected[:, 291], axis=-1)
    lip_gap = landmark_gap(capture.landmarks, LIP_PAIRS[:5]) / width
    touching = lip_gap < 0.02
    lips, lids = lip_openings(track, model), lid_gaps(track, model)
    result = {
        "lips_met": int(touching.sum()),
        "lips_met_mm": _median(lips[touching]),
        "lips_met_within_1mm": _share(lips[touching] <= 1),
        "lips_open_mm": _median(lips[~touching]),
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
