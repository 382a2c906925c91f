"""The drawing order of the splats: from the farthest to the nearest.

As in the rasterisers of 3D Gaussian splatting, the depth of a splat is that of its centre along the camera's axis. The
order therefore depends only on the direction of the view: it has to be computed again when the view rotates, but not
when the view is shifted without rotation.
"""

from __future__ import annotations

import numpy as np


def back_to_front(means: np.ndarray, forward: np.ndarray) -> np.ndarray:
    """(G, 3) centres and the view's axis (3,) -> (G,) indices, the farthest first. Centres with the same sort key keep
    their order.

    The sort keys have 16 bits, because numpy sorts these by radix, eight times as fast as floats. Over a head one step
    of the key is a few thousandths of a millimetre.
    """
    if len(means) == 0:
        return np.empty(0, np.int64)
    depths = means @ np.asarray(forward, means.dtype)
    nearest, farthest = float(depths.min()), float(depths.max())
    if not farthest > nearest:
        return np.arange(len(means))
    keys = ((farthest - depths) * (65535 / (farthest - nearest))).astype(np.uint16)
    return np.argsort(keys, kind="stable")
