"""A web page with an avatar inside, which opens in a browser by a double click: one .html file, nothing else.

A browser lets a page on a disk read no other file, so the page holds its program (`assets/page/avatar.html`, which
`python3 build.py web` makes of `web/`) and the avatar as text. Of the avatar's file it holds what posing needs: no
metrics, no identity, and no networks that only training uses.

The extension has this same file, because it does not import the backend; a test compares the two.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from .errors import EffigyError

PROGRAM: Final = Path(__file__).parent.parent / "assets" / "page" / "avatar.html"
SUFFIX: Final = ".html"
MOVING: Final = "delta_starts"
"""A tensor `baked.…` that a file has if it holds how the head moves."""
_PLACE: Final = '<script id="avatar" type="text/plain">'
_NAMES: Final = ("<title>Avatar</title>", "<h1>Avatar</h1>")
_NEEDED: Final = (
    "baked.",
    "networks.views",
    "networks.performed",
    "networks.filmed",
    *(f"networks.blendshapes.{name}" for name in ("mean", "shapes", "positions", "mix.")),
    *(f"networks.blendshapes.{name}" for name in ("weight_limits", "materials", "reveals", "regions.")),
)
"""How the names of the needed tensors begin."""
_DTYPES: Final = {"float16": "F16", "float32": "F32", "int16": "I16", "int32": "I32"}


def moves_by_itself(content: bytes) -> bool:
    """Whether an avatar's file holds how its head moves (`head_motion`)."""
    return f"baked.{MOVING}" in _entries(content)[0]


def page_of(
    content: bytes, title: str, sliders: Sequence[str] = (), motion: Mapping[str, np.ndarray] | None = None
) -> bytes:
    """The page of an avatar's file with a baked model, whose content was checked.

    `sliders` and `motion` (the arrays of `head_motion`) take the place of the file's, which may hold none. Raises an
    `EffigyError` if the page's program is missing.
    """
    try:
        page = PROGRAM.read_text("utf-8")
    except OSError as error:
        raise EffigyError(f"{PROGRAM} is missing: install Effigy again, or run `python3 build.py web`.") from error
    packed = base64.b64encode(gzip.compress(_needed(content, sliders, motion), mtime=0)).decode()
    for tag in _NAMES:
        page = page.replace(tag, tag.replace("Avatar", html.escape(title)), 1)
    return page.replace(_PLACE, f"{_PLACE}{packed}", 1).encode()


def _needed(content: bytes, sliders: Sequence[str], motion: Mapping[str, np.ndarray] | None) -> bytes:
    """The avatar's file with the needed tensors alone."""
    entries, begin = _entries(content)
    header = json.loads(entries["__metadata__"]["effigy"])
    own = {name: header[name] for name in ("schema", "head_name", "baked")}
    own["settings"] = {name: header["settings"][name] for name in ("sh_degree", "neural_per_anchor")}
    parts: list[tuple[str, str, Sequence[int], bytes]] = []
    for name, entry in entries.items():
        if name.startswith(_NEEDED) and name.removeprefix("baked.") not in (motion or ()):
            first, last = (begin + offset for offset in entry["data_offsets"])
            parts.append((name, entry["dtype"], entry["shape"], content[first:last]))
    if motion is not None:
        own["baked"] = own["baked"] | {"sliders": list(sliders)}
        for name, values in motion.items():
            array = np.ascontiguousarray(values)
            parts.append((f"baked.{name}", _DTYPES[array.dtype.name], array.shape, array.tobytes()))
    # As safetensors orders them, so that numbers of 4 bytes begin at multiples of 4.
    parts.sort(key=lambda part: -len(part[3]) // max(prod(part[2]), 1))
    made: dict[str, Any] = {"__metadata__": {"effigy": json.dumps(own)}}
    at = 0
    for name, dtype, shape, data in parts:
        made[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(made).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(data for *_, data in parts)


def _entries(content: bytes) -> tuple[dict[str, Any], int]:
    """The file's list of tensors, and where the first of them begins."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), 8 + length
