"""Fixtures that several test files of the backend share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Run torch in one thread: such small images gain nothing by more, and threads of a busy machine wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def all_samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real file for every loader of `bench.fault_rows._loaders`; no test changes them."""
    from bench.fault_rows._loaders import make_samples

    folder = tmp_path_factory.mktemp("samples")
    make_samples(folder)
    return folder


@pytest.fixture
def samples(all_samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with copies of the sample files, and a data folder of the user that knows no head models."""
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    return Path(shutil.copytree(all_samples, tmp_path / "files"))
