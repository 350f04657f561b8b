from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from terrain3d.errors import InputFileError, OutputError
from terrain3d.io.atomic import atomic_path, write_json, write_text


def test_atomic_path__failure_inside_leaves_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as part:
        assert part.parent == tmp_path and part.suffix == ".txt"
        part.write_text("half")
        part.with_name(part.name + "-journal").write_text("x")
        _ = 1 / 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and target.read_text() == "old"


def test_atomic_path__own_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="gone"), atomic_path(tmp_path / "a.txt"):
        raise InputFileError("gone")


def test_atomic_path__makes_the_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "deep" / "a.txt", "x")
    assert (tmp_path / "new" / "deep" / "a.txt").read_text() == "x"


def test_write_text__folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written") as caught:
        write_text(tmp_path / "file" / "a.txt", "x")
    assert "\n" not in str(caught.value)


def test_write_text__name_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OutputError, match="in the way"):
        write_text(tmp_path / "a.txt", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


FULL_DISK = """
import resource, sys
import numpy as np
from pathlib import Path
from terrain3d.crs import Reference
from terrain3d.errors import OutputError
from terrain3d.io.atomic import write_text
from terrain3d.io.rasters import write_raster
from terrain3d.raster import Grid, Raster
folder = Path(sys.argv[1])
grid = Grid(Reference("EPSG:32631"), 0, 0, 1, 700, 700)
raster = Raster(np.random.default_rng(0).random(grid.shape, np.float32), grid)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for write in (lambda: write_text(folder / "a.txt", "x" * 200_000),
              lambda: write_raster(folder / "a.tif", raster, nodata=-9999)):
    try:
        write()
        print("written")
    except OutputError as error:
        print("OutputError", len(str(error).splitlines()), error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_write__full_disk(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all(line.startswith("OutputError 1 ") for line in lines), done.stdout
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class Inner:
    b: float
    a: tuple[int, ...]


def test_write_json__order_nan_and_types(tmp_path: Path) -> None:
    value = {
        "z": float("nan"),
        "a": np.float32(1.5),
        "inner": Inner(float("inf"), (1, 2)),
        "p": Path("x"),
        "n": np.arange(2),
    }
    write_json(tmp_path / "q.json", value)
    text = (tmp_path / "q.json").read_text()
    assert list(json.loads(text)) == ["z", "a", "inner", "p", "n"]
    assert json.loads(text) == {"z": None, "a": 1.5, "inner": {"b": None, "a": [1, 2]}, "p": "x", "n": [0, 1]}
