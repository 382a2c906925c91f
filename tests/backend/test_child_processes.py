"""Other programs: one module a side starts them, without a console window on Windows, and what they print or how they
end is always told in words.
"""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import backend.child_process
import blender_addon.child_process

ROOT = Path(__file__).resolve().parents[2]
SIDES = (backend.child_process, blender_addon.child_process)
STARTERS = {
    "subprocess": {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"system", "popen", "startfile", "fork", "forkpty", "posix_spawn", "posix_spawnp"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "multiprocessing": None,
    "concurrent.futures": {"ProcessPoolExecutor"},
    "pty": {"spawn", "fork"},
}
"""Module -> its functions and classes that start processes; None: the whole module."""


def started_in(source: str) -> list[str]:
    """What starts a process in a module's source, as `line: module.name`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            module, name = ast.unparse(node.func.value), node.func.attr
            names = STARTERS.get(module, set())
            if names is None or name in names or (module == "os" and name.startswith(("exec", "spawn"))):
                found.append(f"{node.lineno}: {module}.{name}")
        if isinstance(node, ast.ImportFrom) and node.module in STARTERS:
            names = STARTERS[node.module]
            found += [f"{node.lineno}: {node.module}.{a.name}" for a in node.names if names is None or a.name in names]
        if isinstance(node, ast.Import):
            found += [f"{node.lineno}: {a.name}" for a in node.names if STARTERS.get(a.name, ()) is None]
    return found


def test_only_one_module_of_each_side_starts_processes() -> None:
    allowed = {ROOT / "backend/child_process.py", ROOT / "blender_addon/child_process.py"}
    for path in allowed:
        assert started_in(path.read_text(encoding="utf-8"))
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in ("backend", "blender_addon", "operators")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path not in allowed
        for line in started_in(path.read_text(encoding="utf-8"))
    ]
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess\nsubprocess.run([])",
        "from subprocess import Popen",
        "import multiprocessing",
        "os.execv('a')",
    ],
)
def test_every_way_to_start_a_process_is_found(source: str) -> None:
    assert started_in(source)


@pytest.mark.parametrize("side", SIDES, ids=lambda side: side.__name__)
def test_windows_opens_no_console_window(side, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(sys, "platform", "win32")
    for name, bit in (("NO_WINDOW", 0x08000000), ("NEW_PROCESS_GROUP", 0x200)):
        monkeypatch.setattr(subprocess, f"CREATE_{name}", bit, raising=False)
    monkeypatch.setattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0x4000, raising=False)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **options: started.append(options["creationflags"]))
    monkeypatch.setattr(subprocess, "run", lambda *_, **options: started.append(options["creationflags"]))
    side.start(["folder/program"])
    side.run(["folder/program"], timeout=1)
    assert len(started) == 2 and all(flags & 0x08000000 for flags in started)


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
@pytest.mark.parametrize("side", SIDES, ids=lambda side: side.__name__)
@pytest.mark.parametrize("path", ["", ".", ".:", "planted:."])
def test_a_program_in_the_current_folder_is_never_started(side, path, tmp_path: Path, monkeypatch) -> None:
    for folder in (tmp_path, tmp_path / "planted"):
        folder.mkdir(exist_ok=True)
        (folder / "nvidia-smi").write_text("#!/bin/sh\necho planted\n")
        (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path)
    assert side.find_program("nvidia-smi") is None
    for start in (side.start, lambda command: side.run(command, timeout=10)):
        with pytest.raises(FileNotFoundError, match="nvidia-smi"):
            start(["nvidia-smi"])
    monkeypatch.setenv("PATH", f"{path}:{tmp_path}")
    assert side.run(["nvidia-smi"], timeout=10).stdout == "planted\n", "a full folder on the PATH counts"


def test_the_extension_starts_programs_outside_of_the_folder_that_blender_is_in(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "json.py").write_text("print('planted')")
    monkeypatch.chdir(tmp_path)
    ended = blender_addon.child_process.run([sys.executable, "-c", "import json; print(json.dumps(1))"], timeout=30)
    assert ended.stdout == "1\n"


@pytest.mark.parametrize("side", SIDES, ids=lambda side: side.__name__)
def test_bytes_that_are_no_utf_8_are_replaced(side) -> None:
    program = [sys.executable, "-c", r"import sys; sys.stdout.buffer.write(b'Gr\xfc\xdfe \xc3\xbc')"]
    assert side.run(program, timeout=30).stdout == "Gr\ufffd\ufffde ü"
    with side.start(program, text=True) as process:
        assert process.stdout.read() == "Gr\ufffd\ufffde ü"


@pytest.mark.parametrize("side", SIDES, ids=lambda side: side.__name__)
@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (1, "exit code 1"),
        (-15, "signal 15"),
        (-9, "it was killed, perhaps because memory ran out"),
        (137, "it was killed, perhaps because memory ran out"),
        (-11, "it crashed"),
        (0xC0000005, "it crashed: access violation"),
        (-1073741819, "it crashed: access violation"),
        (0xC0000017, "memory ran out"),
        (0xC0000135, "a DLL that it needs is missing"),
        (0xC000013A, "it was interrupted by Ctrl-C, or its console was closed"),
        (0xC0000409, "it crashed: its own code found a fatal error and aborted"),
        (0xC0001234, "exit code 0xC0001234"),
    ],
)
def test_exit_codes_are_told_in_words(side, code: int, sentence: str) -> None:
    assert side.describe_exit(code) == sentence


def test_both_sides_tell_an_exit_code_in_the_same_words() -> None:
    assert backend.child_process.EXIT_REASONS == blender_addon.child_process.EXIT_REASONS


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no signals")
def test_a_killed_program_ends_with_a_code_that_has_words() -> None:
    program = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    code = blender_addon.child_process.run(program, timeout=30).returncode
    assert blender_addon.child_process.describe_exit(code).startswith("it was killed")


def test_the_programs_that_a_program_started_end_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    grandchild = f"import time\nwhile True:\n    open({str(mark)!r}, 'a').write('x')\n    time.sleep(0.02)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    process = blender_addon.child_process.start([sys.executable, "-c", code])
    until = time.monotonic() + 30
    while not (mark.exists() and mark.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    blender_addon.child_process.end_with_children(process)
    process.wait(30)
    time.sleep(0.3)
    size = mark.stat().st_size
    time.sleep(0.3)
    assert size and mark.stat().st_size == size


def test_a_program_that_runs_too_long_is_ended() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        blender_addon.child_process.run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.3)
