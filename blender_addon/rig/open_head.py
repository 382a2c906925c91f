"""The open head, which the extension carries, as the data of a person's rig: what the worker answers to `head.rig`
(`backend.service.rig_data`), without a worker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np

from ..errors import EffigyError
from .data import RigData

FINGERPRINT: Final = "0fe5f3408b178d5e"
"""`HeadModel.fingerprint` of `assets/open_head.npz`."""
_FILE: Final = Path(__file__).parents[2] / "assets" / "open_head.npz"
_REGION: Final = "region_"


def open_head_data(identity: np.ndarray) -> RigData:
    """The open head of a person with identity coefficients (S,). Takes a fifth of a second. Raises an `EffigyError` if
    the file with the head is missing or damaged, or if it has another number of coefficients.
    """
    try:
        with np.load(_FILE, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise EffigyError(f"The open head cannot be read from {_FILE} ({error}): install Effigy again.") from error
    template, regressor, skinning = (arrays[name] for name in ("template", "joint_regressor", "skinning"))
    identity_deltas, expression_deltas, correctives = (
        np.ascontiguousarray(arrays[f"{name}_basis"].transpose(2, 0, 1), np.float32)
        for name in ("shape", "expression", "pose")
    )
    if len(identity) != len(identity_deltas):
        raise EffigyError(
            f"The person is described by {len(identity)} numbers instead of the open head's {len(identity_deltas)}: "
            "the file is damaged, so choose another one."
        )
    regressor = regressor.astype(np.float64)
    joint_identity = np.einsum("jn,snc->sjc", regressor, identity_deltas)
    expressions, used = len(expression_deltas), np.flatnonzero(correctives.any((1, 2)))
    return RigData(
        head_name=str(arrays["name"]),
        head_fingerprint=FINGERPRINT,
        identity=np.asarray(identity, np.float32),
        vertices=(template + np.tensordot(identity, identity_deltas, 1)).astype(np.float32),
        faces=arrays["faces"],
        uv=arrays["uv"],
        uv_faces=arrays["uv_faces"],
        expression_names=tuple(str(name) for name in arrays["expression_names"]),
        expression_deltas=expression_deltas,
        expression_range=np.tile(arrays["expression_range"].astype(np.float32), (expressions, 1)),
        identity_deltas=identity_deltas,
        corrective_index=used,
        corrective_deltas=correctives[used],
        joints=(regressor @ template + np.tensordot(identity, joint_identity, 1)).astype(np.float32),
        joint_identity=joint_identity.astype(np.float32),
        skinning=skinning,
        arkit_names=(),
        arkit_deltas=np.zeros((0, *template.shape), np.float32),
        arkit_expression=np.zeros((0, expressions), np.float32),
        arkit_jaw=np.zeros((0, 3), np.float32),
        regions={
            name.removeprefix(_REGION): np.sort(vertices).astype(np.int32)
            for name, vertices in arrays.items()
            if name.startswith(_REGION)
        },
    )
