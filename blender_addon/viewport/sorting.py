"""The order in which splats are drawn: the farthest first.

As in the rasterisers the depth is that along the camera's axis, of the centre. So the order depends on the direction of
the view alone: a view that turns in place needs a new one, a view that only moves does not.
"""

from __future__ import annotations

import numpy as np


def back_to_front(means: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """(G, 3) and the axis (3,) along which the view looks -> (G,) indices, the farthest first, stable.

    The keys have 16 bits, for numpy sorts those by radix: eight times as fast as floats, and a step is a few
    thousandths of a millimetre over a head.
    """
    if len(means) == 0:
        return np.empty(0, np.int64)
    depths = means @ np.asarray(forward, means.dtype)
    nearest, farthest = float(depths.min()), float(depths.max())
    if not farthest > nearest:
        return np.arange(len(means))
    keys = ((farthest - depths) * (65535 / (farthest - nearest))).astype(np.uint16)
    return np.argsort(keys, kind="stable")
