"""Sizes of an avatar's networks, stored in its file so that the networks can be rebuilt."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..errors import EffigyError


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
    neural_width: int = 32
    enhancer_width: int = 0
    """Channels of the enhancer's finest block; 0 means no enhancer, as in avatars from before it existed."""

    def to_dict(self) -> dict[str, int]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, int]) -> AvatarSettings:
        known = {field.name for field in dataclasses.fields(AvatarSettings)}
        unknown = set(values) - known
        if unknown:
            raise EffigyError(
                f"The avatar has settings that this Effigy does not know ({', '.join(sorted(unknown))}): "
                "update Effigy to open it."
            )
        return AvatarSettings(**values)
