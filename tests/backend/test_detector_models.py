"""MediaPipe's models are found in any folder, also where a path has characters outside the system's code page."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from mediapipe.tasks import python as tasks

from backend import assets
from backend.footage.detector import FaceDetector
from backend.footage.matte import MattingModel


@pytest.mark.parametrize("model", [FaceDetector, MattingModel])
def test_the_models_load_from_a_folder_with_an_umlaut(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "Jürgen Ångström 名前"
    shutil.copytree(assets._FOLDER / "models", folder / "models")
    monkeypatch.setattr(assets, "_FOLDER", folder)
    options = []

    def spy(**keywords: object) -> object:
        options.append(keywords)
        return real(**keywords)

    real = tasks.BaseOptions
    monkeypatch.setattr(tasks, "BaseOptions", spy)
    with closing(model()) as loaded:
        image = np.zeros((64, 64, 3), np.uint8)
        assert loaded.detect(image) == [] if model is FaceDetector else loaded.confidence(image).shape == (64, 64)
    # MediaPipe opens a path on Windows only in the system's code page.
    assert options and all(set(given) == {"model_asset_buffer"} for given in options)
