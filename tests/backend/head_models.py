"""Small head models for tests that need a rig but not a person: a closed UV sphere with five joints."""

from __future__ import annotations

import numpy as np

from backend.head.model import REGION_NAMES, HeadModel


def ball_head(
    rings: int = 20, sectors: int = 24, identities: int = 3, expressions: int = 4, seed: int = 0
) -> HeadModel:
    """A sphere of 10 cm radius in head space; its lower cap is bound to the root, the rest to the neck and jaw."""
    random = np.random.default_rng(seed)
    polar = np.linspace(0.05, np.pi - 0.05, rings)
    around = np.linspace(0, 2 * np.pi, sectors, endpoint=False)
    direction = np.stack(
        [
            (np.sin(polar)[:, None] * np.sin(around)),
            np.repeat(np.cos(polar)[:, None], sectors, 1),
            (np.sin(polar)[:, None] * np.cos(around)),
        ],
        -1,
    ).reshape(-1, 3)
    template = (0.1 * direction).astype(np.float32)
    faces = []
    for ring in range(rings - 1):
        for sector in range(sectors):
            a, b = ring * sectors + sector, ring * sectors + (sector + 1) % sectors
            faces += [(a, a + sectors, b), (b, a + sectors, b + sectors)]
    count = len(template)

    def basis(components: int, size: float) -> np.ndarray:
        # Low-frequency waves along the normal: neighbours move together, as on a face.
        waves = np.sin(template @ random.normal(0, 30, (3, components)) + random.uniform(0, 6, components))
        return (size * waves[:, None] * direction[:, :, None]).astype(np.float32)

    skinning = np.zeros((count, 5), np.float32)
    low = np.clip((-0.05 - template[:, 1]) / 0.04, 0, 1)
    jaw = np.clip((template[:, 2] - 0.03) / 0.04, 0, 1) * np.clip(-template[:, 1] / 0.03, 0, 1) * (1 - low)
    skinning[:, 0], skinning[:, 2] = low, jaw
    skinning[:, 1] = 1 - low - jaw
    regressor = np.zeros((5, count), np.float32)
    for joint, place in enumerate(
        ((0, -0.09, 0), (0, -0.05, 0), (0, -0.01, 0.02), (0.03, 0.03, 0.09), (-0.03, 0.03, 0.09))
    ):
        nearest = np.argsort(np.linalg.norm(template - place, axis=1))[:4]
        regressor[joint, nearest] = 0.25
    regions = {name: np.zeros(0, np.int32) for name in REGION_NAMES}
    regions["face"] = np.flatnonzero(template[:, 2] > 0.02).astype(np.int32)
    regions["scalp"] = np.flatnonzero((template[:, 2] <= 0.02) & (template[:, 1] > 0)).astype(np.int32)
    regions["neck"] = np.flatnonzero((template[:, 2] <= 0.02) & (template[:, 1] <= 0)).astype(np.int32)
    regions["boundary"] = np.arange(count - sectors, count, dtype=np.int32)
    return HeadModel(
        name="ball",
        template=template,
        shape_basis=basis(identities, 0.004),
        expression_basis=basis(expressions, 0.01),
        pose_basis=np.zeros((count, 3, 36), np.float32),
        joint_regressor=regressor,
        skinning=skinning,
        faces=np.array(faces, np.int32),
        uv=np.zeros((1, 2), np.float32),
        uv_faces=np.zeros((len(faces), 3), np.int32),
        expression_names=tuple(f"expression_{index:03d}" for index in range(expressions)),
        expression_range=(-1.0, 1.0),
        regions=regions,
        landmark_faces=np.full(478, -1, np.int32),
        landmark_barycentric=np.zeros((478, 3), np.float32),
    )
