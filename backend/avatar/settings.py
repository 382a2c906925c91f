"""Sizes of an avatar's networks, stored in its file so that the networks can be rebuilt."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from ..errors import EffigyError
from ..reading import Damaged, shown

LARGEST: Final = {
    "size": 4096,
    "position_bands": 16,
    "normal_bands": 16,
    "filters": 64,
    "latent_size": 64,
    "chebyshev_order": 24,
    "sh_degree": 3,
    "neural_per_anchor": 16,
    "feature_size": 256,
    "neural_width": 512,
    "enhancer_width": 256,
    "blendshapes": 256,
    "lips_turn": 1,
}
"""Of an avatar from a file: four times the paper's numbers or more. With all of them the networks take 1.1 GB on the
largest head model; a file that claims a million channels is no avatar that anyone has trained."""
SMALLEST: Final = {
    "size": 16,
    "filters": 1,
    "latent_size": 1,
    "chebyshev_order": 1,
    "feature_size": 1,
    "neural_width": 1,
}
"""All others may be zero."""

GENERATORS: Final[dict[str, dict[str, int]]] = {
    "unet": {"blendshapes": 0},
    "blendshapes": {"blendshapes": 32, "feature_size": 48, "neural_width": 64},
}
"""What makes the Gaussians, by name: the settings in which they differ. `unet` is the paper's. Larger blendshapes
gained nothing (bench/results/generators.md)."""
DEFAULT_GENERATOR: Final = "blendshapes"


@dataclass(frozen=True)
class AvatarSettings:
    """Sizes of a GraphAvatar. Defaults are the paper's (section 4.1 and the released code), unless a reason is
    given.
    """

    size: int = 256
    """Width and height of the training images, pixels."""
    position_bands: int = 6
    """Frequency bands of the vertices' positions; see `backend.avatar.encoding` for what a number resolves."""
    normal_bands: int = 2
    filters: int = 16
    latent_size: int = 8
    chebyshev_order: int = 6
    sh_degree: int = 1
    """Degree of the anchors' spherical harmonics. The paper has degree 3, but a clip shows each point from a narrow
    cone of directions only, and outside of it the 45 coefficients give an animator's camera arbitrary colours."""
    neural_per_anchor: int = 2
    feature_size: int = 16
    """Of an anchor's feature: for its neural Gaussians, or by which the blendshapes are written."""
    neural_width: int = 32
    """Hidden units of the neural Gaussians' MLPs, or of the network that weights the blendshapes."""
    enhancer_width: int = 0
    """Channels of the enhancer's finest block; 0 means no enhancer, as in avatars from before it existed."""
    blendshapes: int = 0
    """Number of Gaussian blendshapes (`backend.avatar.blendshapes`), which use neither the bands nor `latent_size`; 0
    means the paper's two graph U-Nets, as in avatars from before blendshapes existed."""
    lips_turn: int = 1
    """1 = the lips' Gaussians turn with the mesh around them (`backend.avatar.surface_turns`), 0 = with the joints
    alone, as in avatars from before they did."""

    def to_dict(self) -> dict[str, int]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> AvatarSettings:
        """The settings in an avatar's file. Raises `Damaged` for values of another type or beyond `LARGEST`."""
        if not isinstance(values, dict):
            raise Damaged("its settings cannot be read")
        values = {"lips_turn": 0} | values
        known = {field.name for field in dataclasses.fields(AvatarSettings)}
        unknown = set(values) - known
        if unknown:
            raise EffigyError(
                f"The avatar has settings that this Effigy does not know ({shown(', '.join(sorted(unknown)))}): "
                "update Effigy to open it."
            )
        for name, value in values.items():
            if type(value) is not int or not SMALLEST.get(name, 0) <= value <= LARGEST[name]:
                raise Damaged(f"its {name} is not between {SMALLEST.get(name, 0)} and {LARGEST[name]}")
        return AvatarSettings(**values)
