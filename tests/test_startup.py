"""Help and the bare package answer at once: no heavy library is loaded until a command needs it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("numpy", "scipy", "numba", "cv2", "rasterio", "pyproj", "h5py", "laspy", "shapely", "pyogrio")
MOST_CPU_S, TYPER_CPU_S = 0.5, 0.08  # of help; of what it is built on, where the bound was measured
PROBE = """
import resource, sys
{code}
used = resource.getrusage(resource.RUSAGE_SELF)
print()
print(used.ru_utime + used.ru_stime, *(m for m in {heavy} if m in sys.modules))
"""
HELP = """
from terrain3d.cli import main
try:
    main({arguments})
except SystemExit as end:
    assert end.code == 0
"""
COMMANDS = ("run", "batch", "change", "assess", "info", "ground", "dsm", "dtm", "profile", "volume", "derive", "demo")


def probe(code: str) -> tuple[str, float, list[str]]:
    """Output, CPU seconds and heavy libraries of a fresh interpreter that ran some code."""
    script = PROBE.format(code=code, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *output, last = done.stdout.splitlines()
    seconds, *loaded = last.split()
    return "\n".join(output), float(seconds), loaded


def quickest(code: str) -> tuple[str, float, list[str]]:
    """The quickest of three: the first one may have to compile, and others may use the machine."""
    return min((probe(code) for _ in range(3)), key=lambda p: p[1])


@pytest.fixture(scope="module")
def most_s() -> float:
    """CPU seconds that help may take on this machine, which may be slower than the one of the bound, or busy."""
    return MOST_CPU_S * max(quickest("import typer")[1] / TYPER_CPU_S, 1.0)


def test_import__is_light(most_s: float) -> None:
    _, seconds, loaded = quickest("import terrain3d")
    assert loaded == []
    assert seconds < most_s


@pytest.mark.parametrize("arguments", [["--help"], *([c, "--help"] for c in COMMANDS)], ids=" ".join)
def test_help__is_light(arguments: list[str], most_s: float) -> None:
    text, seconds, loaded = quickest(HELP.format(arguments=arguments))
    assert "Usage: " in text
    assert loaded == []
    assert seconds < most_s


def test_help__names_every_command() -> None:
    text, _, _ = probe(HELP.format(arguments=["--help"]))
    assert all(f"\n  {c} " in text for c in COMMANDS)


def test_version__is_that_of_the_package() -> None:
    text, _, loaded = probe(HELP.format(arguments=["--version"]))
    assert text.split()[0] == "terrain3d"
    assert loaded == []


@pytest.mark.parametrize(("given", "threads"), [({}, 1), ({"OPENBLAS_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}, 3)])
def test_linear_algebra__has_one_thread_unless_asked_for_more(given: dict[str, str], threads: int) -> None:
    """Products of matrices in a process of the command line: as many threads as it then has."""
    code = f"""
import sys
sys.argv = ["terrain3d", "--version"]
{HELP.format(arguments="")}
import os, numpy
assert (numpy.ones((600, 600)) @ numpy.ones((600, 600)))[0, 0] == 600
print(len(os.listdir("/proc/self/task")))
"""
    clean = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean | given)
    assert int(done.stdout.split()[-1]) == min(threads, len(os.sched_getaffinity(0)))
