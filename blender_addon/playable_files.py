"""Names of baked avatars: `anna_playable.effigy`, or with a number, is what Blender plays of `anna.effigy`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from .paths import is_file
from .trusted_paths import trusts

ENDING: Final = "_playable"
"""As in what a training bakes of an avatar of graph U-Nets (`backend.service.commands`)."""
_BAKED: Final = re.compile(rf"(.+){ENDING}(-\d+)?")


def networks_beside(path: Path) -> Path | None:
    """The file with the networks of which `path` is a bake; None if there is none that was used on this computer."""
    if (name := _BAKED.fullmatch(path.stem)) is None:
        return None
    networks = path.with_name(name[1] + path.suffix)
    return networks if trusts(networks) and is_file(networks) else None
