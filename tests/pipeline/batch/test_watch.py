"""What those who watch a batch are told: share of the work, time left, and whether it works at all."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from terrain3d.pipeline.batch import watch
from terrain3d.pipeline.batch.driver import LOCK, is_worked_on
from terrain3d.pipeline.batch.manifest import Manifest, Problem, open_manifest
from terrain3d.pipeline.batch.status import status_lines
from terrain3d.pipeline.batch.watch import SHARES, Watch, progress_of
from terrain3d.pipeline.progress import Silent, time_left
from terrain3d.pipeline.threads import in_threads


class Clock:
    """Stands in for ``time`` and goes on as it is told."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(watch, "time", made)
    return made


@pytest.fixture
def manifest(tmp_path: Path) -> Iterator[Manifest]:
    with open_manifest(tmp_path / "manifest.sqlite") as found:
        yield found


def matched(tmp_path: Path, manifest: Manifest, clock: Clock, known: int) -> watch.Progress:
    """After ties that were known and half of the matching, of which ``known`` of 100 items were known: 3 s an item."""
    worked = 0
    made = Watch(Silent(), tmp_path / "batch.log", manifest)
    made.expect(1000.0, 2)
    made.follow(lambda: worked)
    made.stage("tie points and adjustment")
    made.stage("matching", 100)
    for i in range(50):
        if i >= known:
            clock.now += 3.0
            worked += 1
        made.step()
    clock.now += 2.0
    made.step()
    found = progress_of(manifest)
    assert found is not None and "begin matching" in (tmp_path / "batch.log").read_text()
    return found


def test_watch__share_and_time_left(tmp_path: Path, manifest: Manifest, clock: Clock) -> None:
    found = matched(tmp_path, manifest, clock, 0)
    share = SHARES["tie points and adjustment"] + 0.51 * SHARES["matching"]
    assert (found.stage, found.done, found.total) == ("matching", 51, 100) and found.share == pytest.approx(share)
    pace = (0.05 * 500 + 150) / (0.05 + 0.5 * SHARES["matching"])  # what was planned, and what was measured
    assert found.left_s == pytest.approx(pace * (1 - share), rel=1e-6)


def test_watch__what_was_known_does_not_make_it_look_fast(tmp_path: Path, manifest: Manifest, clock: Clock) -> None:
    found = matched(tmp_path, manifest, clock, 40)
    pace = (0.05 * 500 + 30) / (0.05 + 0.1 * SHARES["matching"])
    assert found.left_s == pytest.approx(pace * (1 - found.share), rel=1e-6)


def test_watch__steps_of_other_threads_count(tmp_path: Path, manifest: Manifest, clock: Clock) -> None:
    made = Watch(Silent(), tmp_path / "batch.log", manifest)
    made.stage("tiles", 10)
    clock.now += 10
    list(in_threads(lambda _: made.step(), range(4), 2))
    made.step()
    found = progress_of(manifest)
    assert found is not None and found.done == 5


def test_status_lines__running_broken_off_and_ended(tmp_path: Path, manifest: Manifest) -> None:
    made = Watch(Silent(), tmp_path / "batch.log", manifest)
    made.stage("tiles", 4)
    made.step()
    assert "on tiles, 0 of 4" in status_lines(manifest, working=True)[0]
    assert "left" in status_lines(manifest, working=True)[1]
    assert "broke off in tiles" in status_lines(manifest, working=False)[0]
    made.end(finished=False)
    assert "not working; left off" in status_lines(manifest, working=False)[0]
    made.end(finished=True)
    assert status_lines(manifest, working=False)[0].startswith("finished at ")


def test_is_worked_on(tmp_path: Path) -> None:
    assert not is_worked_on(tmp_path)
    with (tmp_path / LOCK).open("a") as file:
        assert not is_worked_on(tmp_path)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_worked_on(tmp_path)


def test_time_left() -> None:
    assert [time_left(s) for s in (5, 100, 3000, 7200)] == ["under 1 min", "2 min", "50 min", "2.0 h"]


def test_problem__names_its_place_once() -> None:
    assert Problem("image", "/a.tif", "/a.tif: is truncated").line == "image /a.tif: is truncated"
    assert Problem("tile", "E1N1", "is lost").line == "tile E1N1: is lost"
