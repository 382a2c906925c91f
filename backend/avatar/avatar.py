"""The Avatar and its file: trained networks, identity, settings, training metrics, and the head model that they need.

An `.effigy` file is a safetensors file: tensors, and a JSON header with everything else. Nothing in it is unpickled.
Large tensors are stored at half precision, which changes the rendered images by less than one step of 8 bits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import EffigyError
from ..formats.safetensors_file import is_as_written, read_tensors, write_tensors
from ..formats.track import Track
from ..head.forward import Head
from ..head.mesh_graph import mesh_hierarchy
from ..head.model import HeadModel, same_coefficients
from ..head.registry import find_head
from ..reading import Damaged, check_regular, reading
from ..splatting.types import Splats
from ..storage import check_schema, write_beside
from . import baked
from .anchors import mean_edge_lengths
from .blendshapes import GaussianBlendshapes
from .bust import Bust, bust_from, joined
from .enhancer import Enhancer
from .filmed import distance, is_ellipsoid
from .graph_avatar import GraphAvatar
from .posing import Pose, faces_of, pose_rig
from .settings import AvatarSettings
from .surface_turns import turning_lips

SCHEMA = 1
HALF_PRECISION_FROM = 1024
"""Elements. Smaller tensors, such as layer biases, stay at single precision, because their size does not matter."""
UNLIMITED = ("networks.performed", "networks.filmed", "networks.blendshapes.weight_limits")
"""Tensors that are infinite in avatars without such limits."""
LATENTS, FEATURES = "networks.blendshapes.latents", f"{baked.PREFIX}features"
"""Equal where the graph network adds nothing, as in distilled avatars: the file then has the features alone."""
MOST_BYTES = 512 * 2**20
"""Of an avatar's file. One on FLAME with the paper's settings has 2 MB."""
REMEDY = "train or copy it again"


@dataclass
class Avatar:
    """A trained GraphAvatar on its head model."""

    networks: GraphAvatar
    head_model: HeadModel
    identity: np.ndarray
    """(S,)"""
    settings: AvatarSettings
    metrics: dict[str, Any] = field(default_factory=dict)
    """Recorded by training and shown to the user: preset, steps, training_seconds, training_frames, device, and
    possibly training_psnr and validation_psnr. Files of other versions may have other keys. No value is measured on
    held-out frames."""
    megabytes: float = float("nan")
    """Size of the file that it was loaded from or saved to, in 10^6 bytes."""
    bust: Bust | None = None
    """What is below the neck, where the footage showed it."""

    def __post_init__(self) -> None:
        self.head = Head(self.head_model).to(next(self.networks.parameters()).device)
        with torch.no_grad():
            self.shaped = self.head.shaped(torch.as_tensor(self.identity, device=self.device)[None])
        self.turns = turning_lips(self.head_model, self.device) if self.settings.lips_turn else None

    @property
    def device(self) -> torch.device:
        return next(self.networks.parameters()).device

    @torch.no_grad()
    def splats(self, track: Track, indices: Sequence[int]) -> Splats:
        """Splats of some frames of a track, in head space. The track may be another person's: only its expression,
        rotations and camera are used.
        """
        check_track(track, self.head_model)
        expression, rotations, cameras = (
            torch.as_tensor(part[list(indices)], device=self.device)
            for part in (track.expression, track.rotations, track.head_to_camera)
        )
        head = self.networks(self.pose(expression, rotations, cameras))[0]
        if self.bust is None:
            return head
        torso = torch.as_tensor(track.torso_motions(indices), device=self.device)
        return joined(head, self.bust.posed(rotations, self.shaped.joints[0], torso))

    def without_bust(self) -> Avatar:
        """The head alone."""
        return replace(self, bust=None)

    def pose(self, expression: Tensor, rotations: Tensor, world_to_camera: Tensor) -> Pose:
        """Expression (B, E), rotations (B, 5, 3) and cameras (B, 4, 4) -> the input of the networks."""
        return pose_rig(self.head, self.shaped, expression, rotations, world_to_camera, self.face_limits, self.turns)

    @property
    def face_limits(self) -> tuple[Tensor, Tensor | None]:
        """The `limits` of `pose_rig`. Blendshapes are kept near the filmed faces region by region instead
        (`backend.avatar.filmed_regions`).
        """
        shapes = self.networks.blendshapes
        return (
            self.networks.performed,
            None if shapes is not None and shapes.regions.is_stored else self.networks.filmed,
        )

    @torch.no_grad()
    def distances(self, expression: np.ndarray, rotations: np.ndarray) -> np.ndarray:
        """Expression (F, E) and rotations (F, 5, 3) -> (F,): how far each face is from those of the clip, in units of
        the furthest of these (`backend.avatar.filmed`); 0 for avatars from before this was stored.
        """
        faces = faces_of(*(torch.as_tensor(part, dtype=torch.float32) for part in (expression, rotations)))
        return distance(faces.to(self.device), self.networks.filmed).cpu().numpy()

    @property
    def enhancer(self) -> Enhancer | None:
        return self.networks.enhancer

    @property
    def gaussian_count(self) -> int:
        return len(self.head_model.template) * (1 + self.settings.neural_per_anchor) + len(self.bust or ())


def check_track(track: Track, head_model: HeadModel) -> None:
    """Raise an `EffigyError` for a track of another head model, whose expression components have another meaning."""
    if not same_coefficients(track.head_fingerprint, head_model.fingerprint):
        raise EffigyError(
            f"The track was made with the head model “{track.head_name}”, the avatar with “{head_model.name}”: "
            "track the capture again with the avatar's head model."
        )


def build_networks(settings: AvatarSettings, model: HeadModel, identity: np.ndarray) -> GraphAvatar:
    """Untrained networks for a head of this identity."""
    return GraphAvatar(settings, mesh_hierarchy(model), model.expression_basis.shape[2], _edge_lengths(model, identity))


def _edge_lengths(model: HeadModel, identity: np.ndarray) -> Tensor:
    vertices = model.template + model.shape_basis @ identity
    return torch.from_numpy(mean_edge_lengths(vertices, model.faces))


def save_avatar(avatar: Avatar, path: Path) -> float:
    """Write the `.effigy` file and read it back; returns its size in 10^6 bytes.

    Raises an `EffigyError`, with an older file untouched, if it cannot be written or is not on the disk as written.
    """
    tensors = {"identity": torch.as_tensor(avatar.identity)}
    for name, stored in avatar.networks.state_dict().items():
        value = stored.cpu()
        tensors[f"networks.{name}"] = (value.half() if value.numel() >= HALF_PRECISION_FROM else value).contiguous()
    header = {
        "schema": SCHEMA,
        "settings": avatar.settings.to_dict(),
        "head_name": avatar.head_model.name,
        "head_fingerprint": avatar.head_model.fingerprint,
        "metrics": avatar.metrics,
    }
    if avatar.networks.blendshapes is not None:
        tensors |= _baked_tensors(avatar, avatar.networks.blendshapes)
        if not avatar.networks.blendshapes.has_graph:
            del tensors[LATENTS]
        sliders = baked.own_sliders(avatar.head_model)
        header["baked"] = {"schema": baked.SCHEMA} | ({"sliders": sliders.names} if sliders else {})
        tensors |= baked.motion_tensors(avatar.head_model, sliders) if sliders else {}
    if avatar.bust is not None:
        tensors |= avatar.bust.tensors()
    metadata = {"effigy": json.dumps(header)}
    with write_beside(path) as temporary:
        write_tensors(temporary, tensors, metadata)
        # Before it takes the place of an older avatar, and before the checkpoint is removed.
        if not is_as_written(temporary, tensors, metadata):
            raise EffigyError(
                f"{path} cannot be read back as it was written: its disk or its connection is failing. Nothing was "
                "replaced; choose a folder on another disk, then start again."
            )
    avatar.megabytes = path.stat().st_size / 1e6
    return avatar.megabytes


@torch.no_grad()
def _baked_tensors(avatar: Avatar, blendshapes: GaussianBlendshapes) -> dict[str, Tensor]:
    networks, shaped = avatar.networks, avatar.shaped
    features, turns = blendshapes.features(), avatar.turns
    parts = baked.baked_tensors(features, networks.base_scale, shaped.vertices[0], shaped.joints[0], avatar.head_model)
    return parts if turns is None else parts | baked.turning_tensors(turns.vertices, turns.neighbours)


@dataclass(frozen=True)
class FilePart:
    """The size of one part of an avatar's file."""

    name: str
    numbers: int
    bytes: int
    types: tuple[str, ...]
    """`F16`, `F32`"""


def file_parts(path: Path) -> list[FilePart]:
    """The parts of an `.effigy` file by size, the largest first and the header last."""
    sizes = {"F16": 2, "F32": 4, "F64": 8, "I16": 2, "I32": 4}
    found: dict[str, list[tuple[int, str]]] = {}
    with reading(path, "avatar", REMEDY):
        check_regular(path, "avatar")
        with safe_open(path, "pt") as file:
            for name in file.keys():
                tensor = file.get_slice(name)
                words = name.split(".")
                # networks.geometry.bias_output -> geometry.bias_output; networks.neural.color.bias -> neural.color
                part = ".".join(words[1:3]) if words[0] == "networks" else name
                kind = tensor.get_dtype()
                if kind not in sizes:
                    raise Damaged("it holds tensors of an unknown kind")
                found.setdefault(part, []).append((math.prod(tensor.get_shape()), kind))
    parts = [
        FilePart(
            name,
            sum(count for count, _ in of),
            sum(count * sizes[kind] for count, kind in of),
            tuple(sorted({kind for _, kind in of})),
        )
        for name, of in found.items()
    ]
    header = path.stat().st_size - sum(part.bytes for part in parts)
    return [
        *sorted(parts, key=lambda part: -part.bytes),
        FilePart("header (settings, figures, names)", 0, header, ("JSON",)),
    ]


def load_avatar(path: Path, head_model: HeadModel | None = None, device: str | torch.device = "cpu") -> Avatar:
    """Open an `.effigy` file. Its head model is `head_model`, the bundled one, or one with which the user tracked
    before.
    """
    path = Path(path)
    with reading(path, "avatar", REMEDY):
        header, tensors = read_tensors(path, "avatar", REMEDY, MOST_BYTES)
        check_schema(int(header["schema"]), SCHEMA, f"The avatar {path.name}")
        settings = AvatarSettings.from_dict(header["settings"])
        metrics = header["metrics"]
        head_name, head_fingerprint = str(header["head_name"]), str(header["head_fingerprint"])
        if not isinstance(metrics, dict):
            raise Damaged("its settings cannot be read")
        numbers = {name: _finite_numbers(name, tensor) for name, tensor in baked.without_baked(tensors).items()}
        if LATENTS not in numbers and FEATURES in tensors:
            numbers[LATENTS] = _finite_numbers(FEATURES, tensors[FEATURES])
        identity = numbers.pop("identity").numpy()
        bust = bust_from(tensors)
        megabytes = path.stat().st_size / 1e6
    model = head_model or find_head(head_name, head_fingerprint, f"The avatar {path.name}")
    with reading(path, "avatar", REMEDY):
        if identity.shape != model.shape_basis.shape[2:]:
            raise Damaged(f"its identity does not fit the head model “{model.name}”")
        networks = _load_networks(settings, model, identity, numbers)
    bust = None if bust is None else bust.to(torch.device(device))
    return Avatar(networks.to(device).eval(), model, identity, settings, metrics, megabytes, bust)


def _finite_numbers(name: str, tensor: Tensor) -> Tensor:
    """The tensor at single precision. Raises `Damaged` if not all of its numbers are finite."""
    numbers = tensor.float()
    # Avatars without limits of the performed expressions have infinite ones.
    sane = ~numbers.isnan() if name in UNLIMITED else numbers.isfinite()
    if not tensor.is_floating_point() or not sane.all():
        raise Damaged(f"{name} holds numbers that are not finite")
    return numbers


def _load_networks(
    settings: AvatarSettings, model: HeadModel, identity: np.ndarray, numbers: dict[str, Tensor]
) -> GraphAvatar:
    """The networks with the tensors of a file. Raises `Damaged` where these are not what `settings` ask for."""
    networks = build_networks(settings, model, identity)
    filmed = numbers.get("networks.filmed")
    if filmed is not None and not (filmed.ndim == 2 and len(filmed) > 2 and is_ellipsoid(filmed)):
        raise Damaged("its filmed faces cannot be read")
    reach = numbers.get("networks.blendshapes.regions.reach")
    if reach is not None and not (reach.ndim == 2 and (reach[:, 0] > 0).all() and (reach[:, 1] > reach[:, 0]).all()):
        raise Damaged("its filmed faces cannot be read")
    parameters = {name.removeprefix("networks."): value for name, value in numbers.items()}
    # Avatars from before these were stored have no limits.
    limits = ("views", "performed", *dict(networks.named_buffers()))
    for name, value in networks.state_dict().items():
        if name in limits:
            parameters.setdefault(name, value)
    wanted = {name: value.shape for name, value in networks.state_dict().items()}
    if wanted != {name: value.shape for name, value in parameters.items()}:
        raise Damaged(f"its networks do not fit its settings or the head model “{model.name}”")
    networks.load_state_dict(parameters)
    return networks
