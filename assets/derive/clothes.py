"""What procedural people wear: a plain shirt, and the knitted sweater of the demo's person."""

from __future__ import annotations

import numpy as np

from backend.head.model import HeadModel

from .noise import fractal_noise

AROUND = 360
_RIBS = 72


def shoulders(model: HeadModel, identity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A shirt below the neck: vertices (V, 3) in head space and triangles; a collar, then a smooth fall to the
    shoulders.
    """
    neck = (model.template + model.shape_basis @ identity)[model.regions["boundary"]]
    centre = neck.mean(0)
    reach = np.abs(neck - centre).max(0)
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    down = np.linspace(0, 1, 40)
    marks = [0, 0.05, 0.15, 0.3, 0.5, 0.7, 1]
    width = np.interp(down, marks, [reach[0] + 0.003, reach[0] + 0.009, reach[0] + 0.030, 0.130, 0.190, 0.215, 0.230])
    depth = np.interp(down, marks, [reach[2] + 0.003, reach[2] + 0.009, reach[2] + 0.022, 0.095, 0.115, 0.122, 0.130])
    height = np.interp(down, marks, [0.012, 0.009, -0.006, -0.020, -0.042, -0.080, -0.26])
    rings = np.stack(
        [width[:, None] * np.sin(angles), np.repeat(height[:, None], len(angles), 1), depth[:, None] * np.cos(angles)],
        -1,
    )
    # The collar dips at the throat.
    rings[..., 1] -= 0.020 * np.clip(np.cos(angles), 0, 1) ** 2 * np.exp(-down * 6)[:, None]
    count = len(angles)
    faces = []
    for ring in range(len(down) - 1):
        for index in range(count):
            a, b = ring * count + index, ring * count + (index + 1) % count
            faces += [(a, a + count, b), (b, a + count, b + count)]
    return rings.reshape(-1, 3) + centre, np.array(faces, np.int32)


_COLLAR = np.array(
    [
        (-0.0005, -0.012),
        (-0.0005, 0.004),
        (0.0005, 0.012),
        (0.0030, 0.0148),
        (0.0058, 0.0130),
        (0.0074, 0.006),
        (0.0080, -0.002),
        (0.0078, -0.0085),
        (0.0068, -0.0110),
    ]
)
"""The collar's profile, metres outwards and up: from its inner side over the top to the outside."""


def sweater(neck: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (V, 3) in head space and triangles of a sweater around the ring `neck` (B, 3), and (V, 3) for its
    weave: metres around, metres down, and 1 on the collar.
    """
    centre = neck.mean(0)
    reach = np.abs(neck - centre).max(0)
    angles = np.linspace(0, 2 * np.pi, AROUND, endpoint=False)
    fine = np.linspace(0, len(_COLLAR) - 1, 40)
    band = np.stack([np.interp(fine, np.arange(len(_COLLAR)), _COLLAR[:, axis]) for axis in (0, 1)], 1)
    # Below the collar, the fall to the shoulders.
    down = np.linspace(0, 1, 150) ** 1.3
    marks = [0, 0.05, 0.15, 0.3, 0.5, 0.7, 1]
    fall = (
        [reach[0] + 0.0075, reach[0] + 0.016, reach[0] + 0.036, 0.130, 0.190, 0.215, 0.230],
        [reach[2] + 0.0075, reach[2] + 0.015, reach[2] + 0.028, 0.095, 0.115, 0.122, 0.130],
        [-0.0115, -0.014, -0.023, -0.034, -0.054, -0.090, -0.26],
    )
    width, depth, height = (
        np.concatenate([above, _softened(np.interp(down, marks, below))])
        for above, below in zip((reach[0] + band[:, 0], reach[2] + band[:, 0], band[:, 1]), fall, strict=True)
    )
    share = np.concatenate([np.zeros(len(band)), down])
    is_collar = np.concatenate([np.ones(len(band)), np.zeros(len(down))])

    def around(values: np.ndarray) -> np.ndarray:
        return np.repeat(values[:, None], AROUND, 1)

    sine, cosine = np.sin(angles), np.cos(angles)
    rings = np.stack([width[:, None] * sine, around(height), depth[:, None] * cosine], -1)
    # The collar dips at the throat.
    rings[..., 1] -= 0.020 * np.clip(cosine, 0, 1) ** 2 * np.exp(-share * 6)[:, None]
    outwards = np.stack([sine, np.zeros(AROUND), cosine], -1)
    ribbed = is_collar * np.clip((height + 0.011) / 0.003, 0, 1)
    ribs = 0.0007 * np.abs(np.sin(angles * _RIBS / 2)) * ribbed[:, None]
    places = np.stack([*np.broadcast_arrays(3 * cosine, 3 * sine, 5 * share[:, None])], -1)
    folds = 0.004 * fractal_noise(places, 2, 81) * np.clip(share / 0.25, 0, 1)[:, None]
    rings += (ribs + folds)[..., None] * outwards
    rings[..., 1] += 0.6 * folds
    middle = rings.mean(1)
    middle[:, 0] += width
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(middle, axis=0), axis=1))])
    weave = np.stack([np.repeat(angles[None] * 0.09, len(share), 0), around(along), around(is_collar)], -1)
    ring, index = (part.ravel() for part in np.meshgrid(np.arange(len(share) - 1), np.arange(AROUND), indexing="ij"))
    a, b = ring * AROUND + index, ring * AROUND + (index + 1) % AROUND
    faces = np.concatenate([np.stack([a, a + AROUND, b], 1), np.stack([b, a + AROUND, b + AROUND], 1)])
    return rings.reshape(-1, 3) + centre, faces.astype(np.int32), weave.reshape(-1, 3)


def _softened(values: np.ndarray, width: int = 9) -> np.ndarray:
    padded = np.concatenate([np.full(width, values[0]), values, np.full(width, values[-1])])
    window = np.hanning(2 * width + 1)
    return np.convolve(padded, window / window.sum(), "valid")
