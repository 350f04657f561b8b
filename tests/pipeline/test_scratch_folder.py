"""Results that appear together or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from terrain3d.errors import OutputError
from terrain3d.pipeline.products import optional_files
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


def test_optional_files__those_of_an_earlier_run_go_and_what_is_not_its_own_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "2m").mkdir(parents=True)
    (out / "4m").mkdir()
    own = ["dsm.tif", "ortho_super.tif", "2m/dsm.tif", "4m/dsm.tif", "4m/mask.tif"]
    hrefs = [*(f"./{n}" for n in own), "./4m/chm.tif", "../4m/dsm.tif", "/4m/dsm.tif", "./4m/notes.txt", "./12.tif"]
    for name in (*own, "4m/notes.txt", "12.tif"):
        (out / name).write_text("first")
    assets = {str(k): {"href": h} for k, h in enumerate(hrefs)}
    (out / "item.json").write_text(json.dumps({"assets": assets}))
    assert sorted(map(str, optional_files(out))) == ["2m/dsm.tif", "4m/dsm.tif", "4m/mask.tif", "ortho_super.tif"]
    with scratch_folder(out) as folder, all_or_none(folder, out, optional_files(out)) as ready:
        (ready / "4m").mkdir(parents=True)
        (ready / "dsm.tif").write_text("second")
        (ready / "4m" / "dsm.tif").write_text("second")
    found = {
        p.relative_to(out).as_posix(): p.read_text() for p in out.rglob("*") if p.suffix != ".json" and p.is_file()
    }
    assert found == {"dsm.tif": "second", "4m/dsm.tif": "second", "4m/notes.txt": "first", "12.tif": "first"}
    assert not (out / "2m").exists()
    for text in ("", "[]", '{"assets": []}', '{"assets": {"a": 1}}'):
        (out / "item.json").write_text(text)
        assert optional_files(out) == []
