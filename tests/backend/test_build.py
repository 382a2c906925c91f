"""The build: set-up of the environments, choice of the tests, checks, and the packed extension."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections import namedtuple
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

import build
from building import checks, environments, extension, import_graph
from building.environments import REQUIREMENTS, BuildError


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An environment of the backend's lists in an empty place; `made` lists what would have run to make it."""
    made = []

    def make(command, *_):
        made.append(command)
        environment.python.parent.mkdir(parents=True, exist_ok=True)
        environment.python.touch()
        environment.stamp.unlink(missing_ok=True)

    monkeypatch.setattr(environments, "_run_quietly", make)
    monkeypatch.setattr(environments, "pip", lambda *_: None)
    monkeypatch.setattr(environments, "_has_cuda", lambda _: False)
    environment = replace(environments.BACKEND, folder=tmp_path / ".venv", libraries={})
    return SimpleNamespace(environment=environment, made=made)


@pytest.mark.parametrize("command", ["setup", "demo", "test", "check", "rooms", "extension", "wheels"])
def test_help_is_printed_and_nothing_is_run(command, monkeypatch, capsys):
    def forbidden(*_):
        raise AssertionError("asking for help started the command")

    monkeypatch.setattr(build, "setup", forbidden)
    monkeypatch.setattr(sys, "argv", ["build.py", command, "--help"])
    with pytest.raises(SystemExit) as ended:
        build.main()
    assert ended.value.code == 0 and f"build.py {command}" in capsys.readouterr().out


def test_a_second_set_up_starts_no_program_at_all(fresh, monkeypatch):
    environments.set_up(fresh.environment)
    assert len(fresh.made) == 1

    def forbidden(*_, **__):
        raise AssertionError("a finished set-up started a program")

    for name in ("run", "Popen"):
        monkeypatch.setattr(subprocess, name, forbidden)
    environments.set_up(fresh.environment)
    assert len(fresh.made) == 1


def test_an_environment_behind_a_link_is_used_but_never_made_again(fresh, tmp_path):
    environments.set_up(fresh.environment)
    fresh.environment.folder.rename(tmp_path / "of another checkout")
    fresh.environment.folder.symlink_to(tmp_path / "of another checkout", target_is_directory=True)
    environments.set_up(fresh.environment)
    fresh.environment.stamp.write_text("{}")
    with pytest.raises(BuildError, match="is a link to .*of another checkout"):
        environments.set_up(fresh.environment)
    assert len(fresh.made) == 1


def test_an_interrupted_set_up_is_started_again_from_nothing(fresh, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(environments, "pip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        environments.set_up(fresh.environment)
    monkeypatch.setattr(environments, "pip", lambda *_: None)
    environments.set_up(fresh.environment)
    assert len(fresh.made) == 2 and all("--clear" in command for command in fresh.made)


def test_changed_lists_make_the_environment_again(fresh):
    environments.set_up(fresh.environment)
    stamp = fresh.environment.stamp
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"requirements": "older"}))
    environments.set_up(fresh.environment)
    assert len(fresh.made) == 2


def test_the_lists_of_blender_and_of_the_backend_are_independent():
    assert not set(environments.BACKEND.lists) & set(environments.BLENDER.lists)
    assert environments.BACKEND.folder != environments.BLENDER.folder


def test_a_python_that_blender_does_not_have_is_refused_with_a_sentence(monkeypatch):
    version = namedtuple("Version", "major minor micro")(3, 12, 1)  # noqa: PYI024
    monkeypatch.setattr(environments, "sys", SimpleNamespace(version_info=version))
    with pytest.raises(BuildError, match=r"Python 3\.11 or 3\.13, and this is Python 3\.12"):
        environments.check_python()


@pytest.mark.parametrize(
    ("pip_output", "expected"),
    [
        (
            "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(...)': /simple/numpy/\n"
            "ERROR: Could not find a version that satisfies the requirement numpy==2.4.6",
            "could not be reached",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "hash differs"),
        ("ERROR: No matching distribution found for numpy==9", "No matching distribution found for numpy==9"),
    ],
)
def test_a_failed_download_is_explained_in_one_sentence(pip_output, expected):
    sentence = environments.why_pip_failed(pip_output.splitlines())
    assert expected in sentence and "\n" not in sentence


def test_a_failing_pip_leaves_no_stamp_behind(tmp_path, monkeypatch):
    def make(command, *_):
        environment.python.parent.mkdir(parents=True, exist_ok=True)
        environment.python.write_text("#!/bin/sh\necho 'ERROR: No matching distribution found for numpy'\nexit 1\n")
        environment.python.chmod(0o755)

    monkeypatch.setattr(environments, "_run_quietly", make)
    environment = replace(environments.BACKEND, folder=tmp_path / ".venv", libraries={})
    with pytest.raises(BuildError, match="No matching distribution"):
        environments.set_up(environment)
    assert not environment.stamp.exists()


@pytest.mark.parametrize("name", ["backend", "cuda", "assets", "check", "blender-3.11", "blender-3.13"])
def test_every_package_of_a_list_is_locked_to_its_version_and_hashes(name):
    pin = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)
    wanted = dict(pin.findall((REQUIREMENTS / f"{name}.in").read_text()))
    lock = (REQUIREMENTS / f"{name}.lock").read_text()
    assert dict(pin.findall(lock)) == wanted
    blocks = re.split(r"^(?=[\w.-]+==)", lock, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_environment_that_runs_these_tests_is_the_locked_one():
    if not (environments.BACKEND.folder / "pyvenv.cfg").exists() or sys.prefix != str(environments.BACKEND.folder):
        pytest.skip("these tests run outside .venv")
    from importlib.metadata import PackageNotFoundError, version

    for package, wanted in re.findall(
        r"^([\w.-]+)==(\S+) \\$", (REQUIREMENTS / "backend.lock").read_text(), re.MULTILINE
    ):
        try:
            assert version(package) == wanted, package
        except PackageNotFoundError:
            pytest.fail(f"{package} is not installed")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems bring these libraries along")
def test_missing_system_packages_are_named_with_the_command_that_installs_them(monkeypatch):
    def absent(library):
        raise OSError(library)

    monkeypatch.setattr(environments.ctypes, "CDLL", absent)
    monkeypatch.setattr(environments.os, "geteuid", lambda: 1000)
    with pytest.raises(BuildError, match="sudo apt-get install libegl1 libgles2"):
        environments.install_system_packages(environments.BACKEND_LIBRARIES)
    asked = []
    monkeypatch.setattr(environments.os, "geteuid", lambda: 0)
    monkeypatch.setattr(environments.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(environments, "_run_quietly", lambda command, *_: asked.append(command))
    environments.install_system_packages(environments.BACKEND_LIBRARIES)
    assert asked[0] == ["apt-get", "update"] and asked[1][-2:] == ["libegl1", "libgles2"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Debian's packages are installed")
def test_a_program_that_only_tests_need_is_installed_if_possible_and_never_ends_the_run(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(environments, "_run_quietly", lambda command, *_: asked.append(command))
    monkeypatch.setattr(
        environments.shutil, "which", lambda name, path="": f"/usr/bin/{name}" if "apt" in name else None
    )
    monkeypatch.setattr(environments.os, "geteuid", lambda: 0)
    environments.install_test_programs()
    assert asked[-1][-3:] == ["openssh-server", "bubblewrap", "chromium"]
    monkeypatch.setattr(environments.os, "geteuid", lambda: 1000)
    environments.install_test_programs()
    assert len(asked) == 2 and "Tests that start sshd or bwrap or chromium are skipped" in capsys.readouterr().out
    monkeypatch.setattr(environments.shutil, "which", lambda name, path="": f"/usr/sbin/{name}")
    environments.install_test_programs()
    assert capsys.readouterr().out == ""


# --- which tests run where


def test_each_layer_of_the_tests_runs_under_its_own_python():
    layers = build.layers_of(["-k", "smile"])
    assert [(environment.folder.name, paths) for environment, paths, _ in layers] == [
        (".venv", ["tests/backend", "tests/end_to_end"]),
        (".venv-blender", ["tests/blender"]),
        (".venv-blender", [build.END_TO_END_IN_BLENDER]),
    ]
    assert [options for _, _, options in layers] == [
        ["-k", "smile", f"--ignore={build.END_TO_END_IN_BLENDER}"],
        ["-k", "smile"],
        ["-k", "smile"],
    ]


@pytest.mark.parametrize("folder", ["tests/end_to_end", "tests"])
def test_a_folder_of_the_backends_brings_the_file_that_is_blenders(folder, monkeypatch):
    monkeypatch.chdir(build.ROOT)
    assert (environments.BLENDER, [build.END_TO_END_IN_BLENDER]) in [layer[:2] for layer in build.layers_of([folder])]


def test_named_tests_run_only_where_they_belong(monkeypatch):
    monkeypatch.chdir(build.ROOT)
    blender, backend = "tests/blender/conftest.py::x", "tests/backend/test_build.py"
    assert [(environment, paths) for environment, paths, _ in build.layers_of([blender, "-x"])] == [
        (environments.BLENDER, [blender])
    ]
    assert [(environment, paths) for environment, paths, _ in build.layers_of([blender, backend])] == [
        (environments.BACKEND, [backend]),
        (environments.BLENDER, [blender]),
    ]


@pytest.mark.parametrize(
    ("codes", "wanted"),
    [
        ((0, 0, 0, 0), 0),
        ((0, 0, 1, 0), 1),
        ((0, 2, 1, 0), 2),
        ((0, 0, 0, 1), 1),
        ((0, 5, 0, 5), 0),
        ((0, 5, 5, 5), 5),
        ((3, 0, 0, 0), 3),
        ((3, 1, 0, 0), 3),
        ((3, 5, 5, 5), 3),
    ],
)
def test_one_exit_code_tells_whether_the_checks_or_any_group_of_tests_failed(codes, wanted, monkeypatch, capsys):
    left = list(codes)
    monkeypatch.setattr(build, "set_up", lambda _: None)
    monkeypatch.setattr(build, "run_checks", lambda: left.pop(0))
    monkeypatch.setattr(build, "run", lambda *_, **__: left.pop(0))
    assert build.command_test(SimpleNamespace(rest=[], bpy=None)) == wanted
    assert not left, "a failure kept the remaining groups from running"


@pytest.mark.parametrize(("rest", "bpy"), [(["tests/backend/test_build.py::x", "-q"], None), ([], "4.2.23")])
def test_named_tests_and_other_blenders_run_without_the_checks(rest, bpy, monkeypatch, capsys):
    def forbidden():
        raise AssertionError("the code was checked")

    monkeypatch.chdir(build.ROOT)
    monkeypatch.setattr(build, "set_up", lambda _: None)
    monkeypatch.setattr(build, "run_checks", forbidden)
    monkeypatch.setattr(build, "run", lambda *_, **__: 0)
    assert build.command_test(SimpleNamespace(rest=rest, bpy=bpy)) == 0


# --- the checks


def test_every_check_runs_and_the_first_failure_is_the_exit_code(capsys):
    def program(code: int, text: str) -> tuple[str, ...]:
        return sys.executable, "-c", f"import sys; print({text!r}); sys.exit({code})"

    run = [
        checks.Check("all is formatted", program(0, "chatter")),
        checks.Check("no findings", program(4, "x.py:1: unused import")),
        checks.Check("no type errors", program(1, "x.py:2: not an int")),
    ]
    assert checks.run_checks(tuple(run)) == 4
    printed = re.sub(r" \(\d+ s\)", "", capsys.readouterr().out).splitlines()
    assert printed == [
        "  passed: all is formatted",
        "  FAILED: no findings",
        "x.py:1: unused import",
        "  FAILED: no type errors",
        "x.py:2: not an int",
    ]
    assert checks.run_checks(tuple(run[:1])) == 0


def test_a_cycle_of_imports_is_found_and_named_in_the_order_of_the_imports():
    graph = {"a": {"b", "d"}, "b": {"c"}, "c": {"a"}, "d": set()}
    cycle = import_graph.find_cycle(graph)
    assert cycle[0] == cycle[-1] and all(other in graph[module] for module, other in pairwise(cycle))
    assert len(cycle) == 4
    assert import_graph.find_cycle(graph | {"c": {"d"}}) == []


def test_the_picture_of_the_rooms_changes_with_the_imports():
    graph = {"backend.head.a": {"backend.storage"}, "backend.footage.b": {"backend.head.a"}, "operators.c": set()}
    graph |= {"operators.c": {"blender_addon.rig.d"}, "blender_addon.rig.d": set(), "backend.storage": set()}
    drawn = import_graph.rooms_svg(graph)
    assert "backend.footage → backend.head: 1" in drawn and "storage" not in drawn
    graph["backend.footage.e"] = {"backend.head.a"}
    assert "backend.footage → backend.head: 2" in import_graph.rooms_svg(graph)


def test_another_blender_is_tested_in_an_environment_of_its_own_and_the_backend_is_not(monkeypatch):
    made = []
    monkeypatch.setattr(build, "set_up", made.append)
    layers = build.chosen_layers(SimpleNamespace(rest=["-x"], bpy="4.2.23"))
    assert [(environment.folder.name, paths) for environment, paths, _ in layers] == [
        (".venv-blender-4.2.23", ["tests/blender"]),
        (".venv-blender-4.2.23", [build.END_TO_END_IN_BLENDER]),
    ]
    assert made == [layers[0][0]] and made[0].python_version == (3, 11)


@pytest.mark.parametrize("version", environments.BLENDER_VERSIONS)
def test_each_blender_is_locked_to_the_version_that_it_is_called_by(version):
    assert f"bpy=={version} " in (REQUIREMENTS / environments.blender_of(version).lists[0]).read_text()


def test_a_python_of_pyenv_that_its_launcher_refuses_is_found(tmp_path, monkeypatch):
    launcher, real = tmp_path / "shims" / "python3.8", tmp_path / "versions" / "3.8.1" / "bin" / "python3.8"
    for program, code in ((launcher, 127), (real, 0)):
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\nexit {code}\n", "utf-8")
        program.chmod(0o755)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(environments.shutil, "which", lambda _: str(launcher))
    assert environments._base_python((3, 8)) == str(real)


def test_a_blender_whose_python_is_not_here_is_refused_with_a_sentence(fresh, tmp_path, monkeypatch):
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(environments.shutil, "which", lambda _: None)
    with pytest.raises(BuildError, match=r"python3\.8 was not found: install it"):
        environments.set_up(replace(fresh.environment, python_version=(3, 8)))


# --- the extension


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    if not environments.BLENDER.python.exists():
        pytest.skip(".venv-blender is not made")
    return extension.build_extension(tmp_path_factory.mktemp("dist"))


def test_the_extension_is_the_same_bytes_every_time(package, tmp_path):
    assert extension.build_extension(tmp_path).read_bytes() == package.read_bytes()


def test_the_extension_holds_what_the_product_needs_and_nothing_else(package):
    with zipfile.ZipFile(package) as archive:
        names = archive.namelist()
    for needed in (
        "blender_manifest.toml",
        "__init__.py",
        "LICENSE",
        "blender_addon/registration.py",
        "backend/__main__.py",
        "assets/open_head.npz",
        "assets/models/face_landmarker.task",
        "assets/NOTICE.md",
        "requirements/backend.lock",
    ):
        assert needed in names
    assert not [
        name for name in names if "derive" in name or "__pycache__" in name or name.startswith(("tests", "bench"))
    ]


def test_an_extension_that_blender_would_refuse_is_not_written(package, tmp_path, monkeypatch):
    bad = tmp_path / "blender_manifest.toml"
    bad.write_text(
        (build.ROOT / "blender_addon" / "blender_manifest.toml").read_text().replace('name = "Effigy"', 'name = ""')
    )
    files = list(extension.files_to_ship())
    monkeypatch.setattr(extension, "files_to_ship", lambda: [(bad, files[0][1]), *files[1:]])
    with pytest.raises(BuildError, match="refuses the extension"):
        extension.build_extension(tmp_path / "dist")
    assert not list((tmp_path / "dist").iterdir())


def test_an_environment_without_the_tool_is_reported_in_one_sentence(tmp_path):
    with pytest.raises(BuildError, match="run `python3 build.py setup`"):
        extension.build_extension(tmp_path, environment=tmp_path)
