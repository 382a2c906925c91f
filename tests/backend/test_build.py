"""Set-up: exact, instant the second time, made again after an interruption, and plain about what went wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import namedtuple
from types import SimpleNamespace

import pytest

import build


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """build.py with an empty place for its environment, on a machine that lacks no system package."""
    venv = tmp_path / ".venv"
    monkeypatch.setattr(build, "VENV", venv)
    monkeypatch.setattr(build, "PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(build, "STAMP", venv / "effigy-setup.json")
    monkeypatch.setattr(build, "_install_system_packages", lambda: None)
    monkeypatch.setattr(build, "_has_cuda", lambda: False)
    made = []

    def make(command, *_):
        made.append(command)
        build.PYTHON.parent.mkdir(parents=True, exist_ok=True)
        build.PYTHON.touch()
        build.STAMP.unlink(missing_ok=True)

    monkeypatch.setattr(build, "_run_quietly", make)
    return made


def test_a_second_set_up_starts_no_program_at_all(fresh, monkeypatch):
    monkeypatch.setattr(build, "_pip", lambda *_: None)
    build.setup()
    assert len(fresh) == 1

    def forbidden(*_, **__):
        raise AssertionError("a finished set-up started a program")

    for name in ("run", "Popen"):
        monkeypatch.setattr(subprocess, name, forbidden)
    build.setup()
    assert len(fresh) == 1


def test_an_interrupted_set_up_is_made_anew(fresh, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "_pip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.setup()
    monkeypatch.setattr(build, "_pip", lambda *_: None)
    build.setup()
    assert len(fresh) == 2 and all("--clear" in command for command in fresh)


def test_changed_lists_make_the_environment_anew(fresh, monkeypatch):
    monkeypatch.setattr(build, "_pip", lambda *_: None)
    build.setup()
    build.STAMP.write_text(json.dumps(json.loads(build.STAMP.read_text()) | {"requirements": "older"}))
    build.setup()
    assert len(fresh) == 2


def test_a_python_that_blender_does_not_have_is_refused_with_a_sentence(fresh, monkeypatch):
    version = namedtuple("Version", "major minor micro")(3, 12, 1)
    monkeypatch.setattr(build, "sys", SimpleNamespace(version_info=version))
    with pytest.raises(build.BuildError, match=r"Python 3\.11 or 3\.13, and this is Python 3\.12"):
        build.setup()
    assert not fresh


@pytest.mark.parametrize(("pip_says", "told"), [
    ("WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(...)': /simple/numpy/\n"
     "ERROR: Could not find a version that satisfies the requirement numpy==2.4.6", "could not be reached"),
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
    ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "hash differs"),
    ("ERROR: No matching distribution found for numpy==9", "No matching distribution found for numpy==9"),
])
def test_a_failed_download_is_told_in_a_sentence(pip_says, told):
    sentence = build._why_pip_failed(pip_says.splitlines())
    assert told in sentence and "\n" not in sentence


def test_a_failing_pip_leaves_no_stamp_behind(fresh, monkeypatch):
    def make(command, *_):
        build.PYTHON.parent.mkdir(parents=True, exist_ok=True)
        build.PYTHON.write_text("#!/bin/sh\necho 'ERROR: No matching distribution found for numpy'\nexit 1\n")
        build.PYTHON.chmod(0o755)

    monkeypatch.setattr(build, "_run_quietly", make)
    with pytest.raises(build.BuildError, match="No matching distribution"):
        build.setup()
    assert not build.STAMP.exists()


@pytest.mark.parametrize("name", ["backend", "cuda", "assets"])
def test_every_package_of_a_list_is_locked_to_its_version_and_hashes(name):
    pin = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)
    wanted = dict(pin.findall((build.REQUIREMENTS / f"{name}.in").read_text()))
    lock = (build.REQUIREMENTS / f"{name}.lock").read_text()
    assert dict(pin.findall(lock)) == wanted
    blocks = re.split(r"^(?=[\w.-]+==)", lock, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_environment_that_runs_these_tests_is_the_locked_one():
    if not (build.VENV / "pyvenv.cfg").exists() or sys.prefix != str(build.VENV):
        pytest.skip("these tests run outside .venv")
    from importlib.metadata import PackageNotFoundError, version

    for package, wanted in re.findall(r"^([\w.-]+)==(\S+) \\$", (build.REQUIREMENTS / "backend.lock").read_text(), re.MULTILINE):
        try:
            assert version(package) == wanted, package
        except PackageNotFoundError:
            pytest.fail(f"{package} is not installed")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems bring these libraries along")
def test_missing_system_packages_are_named_with_the_command_that_installs_them(monkeypatch):
    def absent(library):
        raise OSError(library)

    monkeypatch.setattr(build.ctypes, "CDLL", absent)
    monkeypatch.setattr(build.os, "geteuid", lambda: 1000)
    with pytest.raises(build.BuildError, match="sudo apt-get install libegl1 libgles2"):
        build._install_system_packages()
    asked = []
    monkeypatch.setattr(build.os, "geteuid", lambda: 0)
    monkeypatch.setattr(build.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(build, "_run_quietly", lambda command, *_: asked.append(command))
    build._install_system_packages()
    assert asked[0] == ["apt-get", "update"] and asked[1][-2:] == ["libegl1", "libgles2"]
