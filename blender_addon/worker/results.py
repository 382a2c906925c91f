"""What an answer of the worker must hold so that Blender can draw it: checked once, when it arrives.

Arrays go from here to the GPU and into render passes, so that a wrong shape or type would show as noise, or worse. The
other answers are read by name in `rig`, `avatars` and the operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

SPLATS: Final[Mapping[str, tuple[int, ...]]] = {
    "means": (3,),
    "quaternions": (4,),
    "scales": (3,),
    "opacities": (),
    "colors": (3,),
}
"""Arrays of `avatar.splats` -> numbers of one Gaussian, float32."""
IMAGE: Final[Mapping[str, tuple[int, ...]]] = {"color": (3,), "alpha": (), "depth": ()}
"""Arrays of `avatar.render` -> numbers of one pixel, float32."""
PARTS: Final = "parts"
"""Array of `avatar.render` where parts are asked for: their number for one pixel, float32."""
HOLE: Final[Mapping[str, tuple[int, ...]]] = {"hole": ()}
"""Where a subject is a holdout, one more."""


def check_result(method: str, params: Mapping[str, Any], result: Any) -> None:
    """Raises a ValueError if this is no answer to this request."""
    if method == "avatar.splats":
        first = result.get("means") if isinstance(result, dict) else None
        _check_arrays(result, SPLATS, first.shape[:1] if isinstance(first, np.ndarray) else ())
    elif method == "avatar.render":
        camera = params.get("camera", {})
        holdout = any(subject.get("holdout") for subject in params.get("subjects", ()))
        parts = {PARTS: (params["parts"],)} if params.get("parts") else {}
        _check_arrays(
            result, {**IMAGE, **(HOLE if holdout else {}), **parts}, (camera.get("height"), camera.get("width"))
        )


def _check_arrays(result: Any, wanted: Mapping[str, tuple[int, ...]], count: tuple[int, ...]) -> None:
    for name, shape in wanted.items():
        array = result.get(name) if isinstance(result, dict) else None
        if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.shape != (*count, *shape):
            raise ValueError(f"its “{name}” is not an array of the right type and shape")
