"""Names and commands follow the rules of the system on which they are used."""

from __future__ import annotations

import doctest
import subprocess
from pathlib import Path, PureWindowsPath

import pytest

from backend import storage
from backend.head.mesh_graph import cache_folder
from backend.head.registry import user_folder
from backend.service.exchange_store import exchange_folder
from blender_addon import command_line
from blender_addon.command_line import split_command
from blender_addon.file_names import file_name

SSH = r"C:\Windows\System32\OpenSSH\ssh.exe"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (rf"{SSH} -T studio", [SSH, "-T", "studio"]),
        (r'"C:\Program Files\Git\ssh.exe" studio', [r"C:\Program Files\Git\ssh.exe", "studio"]),
        (
            'ssh studio "cd effigy && .venv/bin/python -m backend serve"',
            ["ssh", "studio", "cd effigy && .venv/bin/python -m backend serve"],
        ),
        (r"ssh \\server\share\key", ["ssh", r"\\server\share\key"]),
        (r'"C:\bin\"ssh.exe x', [r"C:\bin\ssh.exe", "x"]),
        ("  ssh\t a  ", ["ssh", "a"]),
        ('ssh ""', ["ssh", ""]),
        ("", []),
        # The table of Microsoft, "Parsing C command-line arguments".
        ('p "a b c" d e', ["p", "a b c", "d", "e"]),
        (r'p "ab\"c" "\\" d', ["p", 'ab"c', "\\", "d"]),
        (r'p a\\\b d"e f"g h', ["p", r"a\\\b", "de fg", "h"]),
        (r"p a\\\"b c d", ["p", r"a\"b", "c", "d"]),
        (r'p a\\\\"b c" d e', ["p", r"a\\b c", "d", "e"]),
        ('p a"b"" c d', ["p", 'ab" c d']),
    ],
)
def test_a_command_is_split_as_windows_does(command, arguments):
    if command.endswith('a"b"" c d'):
        with pytest.raises(ValueError, match="quotation"):
            split_command(command, windows=True)
        arguments, command = ["p", 'ab" c d'], command + '"'
    assert split_command(command, windows=True) == arguments


@pytest.mark.parametrize(
    "argument", ["plain", "two words", 'a"b', "C:\\folder\\", "C:\\a b\\", '\\"', "", "\\\\srv\\x y"]
)
def test_what_python_quotes_for_windows_is_split_again(argument):
    line = subprocess.list2cmdline(["ssh", argument, "end"])
    assert split_command(line, windows=True) == ["ssh", argument, "end"]


def test_other_systems_split_as_a_shell_does():
    command = "ssh studio 'cd effigy && run'"
    assert split_command(command, windows=False) == ["ssh", "studio", "cd effigy && run"]
    assert doctest.testmod(command_line).failed == 0
    for windows in (False, True):
        with pytest.raises(ValueError, match="quotation"):
            split_command('ssh "studio', windows=windows)


@pytest.mark.parametrize(
    "name",
    ["CON", "con.txt", "NUL.tar.gz", "COM1", "lpt9 .x", "COM²", "a:b", r"..\..\x", "../../x", "..", ".", "", "a ", "a.",
     "a. .", "tab\there", 'q"?*<>|', r"\\server\share", "C:\\x", "名前", "x" * 400, "名" * 400, " .hidden",
     "half \ud800"],
)  # fmt: skip
def test_every_datablock_gets_a_name_that_windows_accepts(name):
    safe = file_name(name, ".effigy")
    path = PureWindowsPath(safe)
    assert safe.endswith(".effigy") and len(safe) > len(".effigy") and len(safe.encode()) < 240
    assert path.parts == (safe,) and not path.drive and not path.root
    assert not path.is_reserved()
    assert not set(safe) & set('\\/:*?"<>|') and safe.isprintable()
    assert not path.stem.endswith((".", " ")) and safe not in (".", "..")


def test_a_good_name_stays_as_it_is():
    assert file_name("Ann 2.effigy", ".effigy") == "Ann 2.effigy"
    assert file_name("Ann.v2", ".effigy") == "Ann.v2.effigy"
    assert file_name("...", ".effigy") == "avatar.effigy"


def test_one_file_by_two_spellings_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one, other = tmp_path / "Ann.effigy", tmp_path / "ann.EFFIGY"
    assert storage.is_same_path(one, tmp_path / "x" / ".." / "Ann.effigy")
    for system, same in (("linux", False), ("win32", True), ("darwin", True)):
        monkeypatch.setattr("sys.platform", system)
        assert storage.is_same_path(one, other) == same


def test_a_variable_for_a_folder_that_is_set_to_nothing_means_the_default(monkeypatch):
    for name in ("EFFIGY_USER", "EFFIGY_CACHE", "APPDATA", "LOCALAPPDATA", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, "")
    # Relative ones would lie in the extension's folder, which an update deletes.
    assert all(folder.is_absolute() for folder in (user_folder(), cache_folder(), exchange_folder()))
