"""Results that appear together or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from terrain3d.errors import OutputError
from terrain3d.pipeline.scratch_folder import all_or_none, scratch_folder


def write(out: Path, text: str, *, fail: bool = False) -> None:
    with scratch_folder(out) as folder, all_or_none(folder, out) as ready:
        (ready / "2m").mkdir(parents=True)
        (ready / "dsm.tif").write_text(text)
        if fail:
            raise KeyboardInterrupt
        (ready / "2m" / "dsm.tif").write_text(text)


def test_all_or_none__an_interrupted_run_does_not_mix_with_the_one_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write(out, "first", fail=True)
    assert not out.exists()
    write(out, "first")
    with pytest.raises(KeyboardInterrupt):
        write(out, "second", fail=True)
    files = {p.relative_to(out).as_posix(): p.read_text() for p in out.rglob("*") if p.is_file()}
    assert files == {"dsm.tif": "first", "2m/dsm.tif": "first"}
    write(out, "second")
    assert {p.read_text() for p in out.rglob("*.tif")} == {"second"} and len(list(out.iterdir())) == 2


def test_all_or_none__a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "dsm.tif").mkdir()
    with pytest.raises(OutputError, match=r"dsm\.tif: cannot be written .* in the way"):
        write(tmp_path, "x")
    assert [p.name for p in tmp_path.rglob("*")] == ["dsm.tif"]
