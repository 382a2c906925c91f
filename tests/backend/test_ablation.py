"""The training and ablation benchmarks on a tiny capture: every variant trains and is scored, and a stopped run
resumes.
"""

from __future__ import annotations

import json

import pytest
import torch
from small_capture import make_small_capture

from backend.avatar.settings import GENERATORS
from backend.errors import Cancelled
from backend.progress import SILENT, Progress
from backend.training import presets
from backend.training.presets import Preset
from bench.ablation import VARIANTS, run
from bench.generators import main as compare_generators
from bench.training import measure

TESTED_VARIANTS = ["full", "no_warmup", "no_neural", "no_refinement", "no_enhancer"]
"""The variants with other numbers of neural Gaussians run the same code as the full method."""


class Stop(Progress):
    """Cancels as soon as the second variant starts to train."""

    def __init__(self) -> None:
        self.started = 0

    def message(self, text: str) -> None:
        self.started += 1

    def cancelled(self) -> bool:
        return self.started > 1


def test_variants_are_trained_once_and_listed_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    monkeypatch.setitem(presets.PRESETS, "draft", Preset(size=64, warmup_steps=3, steps=3))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        capture, _, _ = make_small_capture(tmp_path, frames=15)
        options = {"preset": "draft", "minutes": None, "size": 64, "device": "cpu", "only": TESTED_VARIANTS}
        with pytest.raises(Cancelled):
            run(capture.folder, tmp_path / "out", **options, progress=Stop())
        first = (tmp_path / "out" / "full.effigy").stat().st_mtime_ns
        table = run(capture.folder, tmp_path / "out", **options, progress=SILENT)
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "out" / "full.effigy").stat().st_mtime_ns == first
    assert (
        all(f"| {variant.title} |" in table for variant in VARIANTS if variant.name in TESTED_VARIANTS)
        and "LPIPS" in table
    )
    assert (tmp_path / "out" / "grid.png").is_file() and (tmp_path / "out" / "table.md").read_text() == table


def test_training_bench_names_every_part_of_a_step(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    capture, _, _ = make_small_capture(tmp_path, frames=15)
    report = measure(capture.folder, generator="unet", size=64, steps=3, device="cpu", plain=False)
    for part in ("steps/s", "refinement", "networks", "rasteriser", "enhancer", "losses", "backward"):
        assert part in report
    assert "enhancer |" not in measure(
        capture.folder, generator="blendshapes", size=64, steps=3, device="cpu", plain=True
    )


def test_generators_are_compared_once_and_again_from_what_was_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    capture, _, _ = make_small_capture(tmp_path, frames=15)
    options = [str(capture.folder), "--out", str(tmp_path / "out"), "--minutes", "0.002", "--size", "64"]
    monkeypatch.setattr("sys.argv", ["generators", *options])
    compare_generators()
    table = capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert [row["name"] for row in rows] == list(GENERATORS) and all(f"| {name} |" in table for name in GENERATORS)
    assert all(row["steps"] >= 1 and 5 < row["psnr"] < 60 and 0.05 < row["megabytes"] < 4 for row in rows)
    monkeypatch.setattr("bench.generators.train", None)
    compare_generators()
    assert json.loads((tmp_path / "out" / "rows.json").read_text()) == rows


def test_generators_are_scored_by_evaluate_on_all_frames(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    capture, _, _ = make_small_capture(tmp_path, frames=15)
    options = [str(capture.folder), "--out", str(tmp_path / "out"), "--minutes", "0.002", "--size", "64"]
    options += ["--only", "blendshapes", "--preset", "standard", "--all-frames"]
    monkeypatch.setattr("sys.argv", ["generators", *options])
    compare_generators()
    (row,) = json.loads((tmp_path / "out" / "rows.json").read_text())
    metrics = json.loads(next((tmp_path / "out").glob("*/metrics.json")).read_text())
    assert metrics["settings"]["enhancer_width"] == 0
    assert (row["psnr"], row["refitted"]) == (metrics["psnr"], metrics["refitted"]["psnr"])
    assert row["name"] == "blendshapes, standard" and "| tracked by the avatar |" in capsys.readouterr().out
