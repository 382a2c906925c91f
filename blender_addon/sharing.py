"""An avatar as a web page, made of its file, and of its rig, which says how the head moves: the file may be a
stranger's, and nothing in Blender needs what it says about that.
"""

from __future__ import annotations

from math import radians
from pathlib import Path
from typing import Final

import bpy
import numpy as np

from .avatar_header import NOUN, REMEDY
from .avatars import avatar_path
from .errors import EffigyError
from .head_motion import CORRECTIVES, delta_arrays, gaze_rotations, slider_arrays
from .player.evaluate import Player
from .player.players import player_of
from .reading import reading
from .rig.joint_limits import LOOK_SIDEWAYS, LOOK_UP
from .rig.rig_properties import Rig
from .web_page import page_of

MOST_BYTES: Final = 64 << 20
"""Of an avatar's file that goes into a page; one on FLAME has some megabytes."""


def web_page(rig: Rig, depsgraph: bpy.types.Depsgraph) -> bytes:
    """The page of a rig's avatar. Raises an `EffigyError` if the avatar has no baked model, or its head no sliders with
    ARKit's names.
    """
    path = avatar_path(rig.armature)
    player = player_of(rig, path, depsgraph)
    if player is None:
        raise EffigyError(
            f"The avatar {path.name} has no baked model, which a page needs: press Make Playable without Backend, or "
            "train it again."
        )
    names = rig.arkit_names or (rig.expression_names if "jawOpen" in rig.expression_names else ())
    if not names:
        raise EffigyError(
            f'The head model "{rig.head_name}" has no sliders with ARKit\'s names, which the page would show.'
        )
    if not player.is_near():
        raise EffigyError(f"The {NOUN} {path} is damaged (its Gaussians are nowhere): {REMEDY}.")
    return page_of(_content(path), rig.mesh.name, names, _motion(rig, player, names))


def _motion(rig: Rig, player: Player, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    jaw, deltas = player.baked.jaw, player.deltas
    if rig.arkit_names:
        expression, turns = rig.arkit_expression, rig.arkit_jaw
    else:
        expression, turns = np.diag((~jaw.any(1)).astype(np.float32)), jaw
    correctives = np.zeros((CORRECTIVES, *deltas.expression.shape[1:]), np.float32)
    correctives[deltas.corrective_index] = deltas.corrective
    gaze = gaze_rotations(radians(LOOK_SIDEWAYS), radians(LOOK_UP))
    return slider_arrays(names, expression, turns, gaze) | delta_arrays(
        deltas.expression.transpose(0, 2, 1), correctives.transpose(0, 2, 1), jaw
    )


def _content(path: Path) -> bytes:
    with reading(path, NOUN, REMEDY), open(path, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise EffigyError(f"The avatar {path} is larger than {MOST_BYTES >> 20} MB, too much for a page.")
    return content
