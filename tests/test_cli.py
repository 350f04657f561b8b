"""The command line: help, exit codes, one line for an error, nothing heavy before it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from terrain3d import __version__, cli
from terrain3d.console import ConsoleReporter, say_table
from terrain3d.errors import InputFileError
from terrain3d.pipeline.progress import Recorder

COMMANDS = (
    "run",
    "batch",
    "change",
    "series",
    "update",
    "m3c2",
    "register",
    "assess",
    "info",
    "profile",
    "volume",
    "derive",
    "demo",
    "ground",
    "dsm",
    "dtm",
)


def call(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    return stop.value.code


def test_help__lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    out = capsys.readouterr().out
    assert all(f"\n  {c} " in out for c in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help__of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, "--help") == 0
    out = capsys.readouterr().out
    assert out.startswith("Usage: ") and command in out
    if command in ("run", "batch", "change", "demo"):
        assert "--out" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"terrain3d {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["run"],
        ["run", "a.yaml"],
        ["run", "a.yaml", "--out", "x", "--workers", "0"],
        ["change", "a", "--out", "x"],
        ["--no"],
    ],
)
def test_usage__wrong_arguments_are_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "Usage" in printed.err and "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputFileError("is broken", where="a.tif", fix="mend it"), 2, "terrain3d: a.tif: is broken; mend it\n"),
        (MemoryError(), 1, "terrain3d: out of memory; use fewer --workers or a smaller scene\n"),
        (KeyboardInterrupt(), 1, "terrain3d: interrupted\n"),
        (
            KeyError("x\ny"), 1,
            "terrain3d: unexpected KeyError: 'x\\ny'; set TERRAIN3D_DEBUG=1 for the traceback and report it\n",
        ),
    ],
)  # fmt: skip
def test_main__errors_to_exit_codes(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.delenv("TERRAIN3D_DEBUG", raising=False)
    monkeypatch.setattr("terrain3d.commands.info.info_command", fail)
    assert call("info", "a.tif") == code
    assert capsys.readouterr().err == line


def test_main__debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("x")

    monkeypatch.setenv("TERRAIN3D_DEBUG", "1")
    monkeypatch.setattr("terrain3d.commands.info.info_command", fail)
    with pytest.raises(KeyError):
        cli.main(["info", "a.tif"])


def test_import__help_needs_no_heavy_library() -> None:
    heavy = "('numba', 'rasterio', 'cv2', 'scipy', 'h5py')"
    code = f"import sys, terrain3d.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.strip() == "[]"


def test_info__of_nothing_that_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.docx").write_text("x")
    assert call("info", str(tmp_path / "a.docx")) == 2
    assert capsys.readouterr().err.count("\n") == 1


# what the user sees


def test_reporter__a_line_a_stage_in_a_pipe_and_all_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    with ConsoleReporter() as console:
        reporter = Recorder(console)
        reporter.stage("inputs")
        reporter.note("only for the log")
        reporter.stage("matching", 3)
        for _ in range(3):
            reporter.step()
        reporter.warn("few [ties]")
        reporter.close()
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert [x.split(":")[0] for x in lines] == ["inputs", "warning", "matching"]
    assert lines[1] == "warning: few [ties]"
    assert reporter.warnings == ["few [ties]"] and list(reporter.seconds) == ["inputs", "matching"]
    assert [x.split(" ", 1)[1].split(": ")[0] if " end " in x else x.split(" ", 1)[1] for x in reporter.log] == [
        "begin inputs", "only for the log", "end inputs", "begin matching", "warning: few [ties]", "end matching",
    ]  # fmt: skip


def test_reporter__quiet_shows_only_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with ConsoleReporter(quiet=True) as reporter:
        reporter.stage("inputs")
        reporter.warn("look")
    assert capsys.readouterr().err == "warning: look\n"


def test_say_table__columns_stand_under_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    say_table(["class", "n"], [["all", "7"], ["building", "1234"]])
    assert capsys.readouterr().out.splitlines() == ["class        n", "all          7", "building  1234"]


@pytest.mark.parametrize(("writable", "given"), [(True, False), (False, False), (False, True)])
def test_entry_point__finds_room_for_compiled_functions(writable: bool, given: bool) -> None:
    """In containers often neither the program's folder nor a home can be written."""
    code = f"""
import os, sys
os.access = lambda place, mode: {writable}
def stat(path, *given, real=os.stat, **named):
    if "/closed/" in str(path):
        raise PermissionError(13, "Permission denied", str(path))
    return real(path, *given, **named)
os.stat = stat  # a home of another user, which cannot be entered
sys.argv = ["terrain3d", "--version"]
from terrain3d.cli import main
try:
    main()
finally:
    folder = os.environ.get("NUMBA_CACHE_DIR", "")
    print(folder, os.path.isdir(folder))
"""
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": "/closed/cache"} | ({"NUMBA_CACHE_DIR": "/given"} if given else {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    folder, _, made = done.stdout.splitlines()[-1].rpartition(" ")
    assert made == str(not writable and not given) and bool(folder) == (not writable)
    assert not folder or not Path(folder).exists()  # gone with the process


def test_entry_point__without_streams_and_with_an_empty_argument() -> None:
    command = [sys.executable, "-m", "terrain3d"]
    closed = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command, "--version"]
    assert subprocess.run(closed, timeout=600, check=False).returncode == 0
    wrong = [*command, "run", "scene.yaml", "--out", ""]
    done = subprocess.run(wrong, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout) == (2, "") and "argument is empty" in done.stderr
