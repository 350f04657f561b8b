"""What each command does, between its arguments and the library."""

from __future__ import annotations

from pathlib import Path

from terrain3d.assess import Assessment, assess
from terrain3d.change.detect import ChangeOptions, ChangeResult
from terrain3d.config import load_scene
from terrain3d.console import ConsoleReporter, say, say_table
from terrain3d.errors import Terrain3dError
from terrain3d.info import describe
from terrain3d.io.atomic import write_json
from terrain3d.pipeline.change import run_change
from terrain3d.pipeline.demo import DemoResult, run_demo
from terrain3d.pipeline.result import RunResult
from terrain3d.pipeline.run import run_scene
from terrain3d.surface.mask import MaskCode


def run_command(scene: Path, out: Path, *, workers: int | None, quiet: bool) -> None:
    """``terrain3d run``."""
    with ConsoleReporter(quiet=quiet) as reporter:
        result = run_scene(load_scene(scene), out, reporter, workers=workers)
    if not quiet:
        _say_run(result, out)


def _say_run(result: RunResult, out: Path) -> None:
    shares = ", ".join(f"{n} {100 * result.cells[f'{n}_share']:.1f} %" for n in (c.name.lower() for c in MaskCode))
    worst = max(result.network.adjustment.rms_after_px)
    say(f"cells: {shares}")
    say(f"adjustment: {result.network.ties.n_tracks} tie points, RMS at most {worst:.2f} px")
    r = result.registration
    if r is None:
        say("lidar: none given; heights rest on the pointing of the images")
    else:
        say(f"lidar: {int(r.used.sum())} returns used; shift {r.dx:.2f} E, {r.dy:.2f} N, {r.dz:.2f} m up")
        if r.before is not None and r.after is not None:
            bias = f"bias {r.before.bias:.2f} -> {r.after.bias:.2f} m"
            say(f"held-out returns: {bias}, NMAD {r.after.nmad:.2f} m (n = {r.after.n})")
    say(f"results: {out} (open report.html)")


def change_command(before: Path, after: Path, out: Path, *, min_area: float, quiet: bool) -> None:
    """``terrain3d change``."""
    with ConsoleReporter(quiet=quiet) as reporter:
        result = run_change(before, after, out, ChangeOptions(min_area=min_area), reporter)
    if not quiet:
        say_changes(result)
        say(f"results: {out} (open report.html)")


def say_changes(result: ChangeResult) -> None:
    """Table of the largest changes, and what co-registration did."""
    a = result.alignment
    say(f"co-registration: after moved {a.east:.2f} E, {a.north:.2f} N, {a.up:.2f} m up")
    rows = [
        [
            str(r.kind),
            f"{m.area:.0f}",
            f"{m.mean_dz:+.1f}",
            f"{m.volume:+.0f} +- {m.volume_sigma:.0f}",
            f"{r.confidence:.2f}",
        ]
        for r in sorted(result.regions, key=lambda r: -abs(r.measures.volume))[:20]
        for m in [r.measures]
    ]
    if rows:
        say_table(["kind", "area m2", "dz m", "volume m3", "confidence"], rows)
    say(f"{len(result.regions)} changes")


def assess_command(estimate: Path, reference: Path, classes: Path | None, json: Path | None) -> None:
    """``terrain3d assess``."""
    found = assess(estimate, reference, classes)
    say_assessment(found)
    if json is not None:
        write_json(json, found.to_dict())


def say_assessment(found: Assessment) -> None:
    """Table of accuracy, remaining offset, notes."""
    say_table(*found.table())
    if found.offset is not None:
        o = found.offset
        say(f"offset: {o.east:+.2f} m east, {o.north:+.2f} m north, {o.up:+.2f} m up")
    for note in found.notes:
        say(f"note: {note}")


def info_command(files: list[Path]) -> None:
    """``terrain3d info``: every file is described; the first that cannot be is the error, at the end."""
    failed: Terrain3dError | None = None
    for path in files:
        try:
            found = describe(path)
        except Terrain3dError as error:
            failed = failed or error
            continue
        say(f"{found.path}: {found.kind}")
        width = max((len(str(k)) for k, _ in found.facts), default=0)
        for key, value in found.facts:
            say(f"  {str(key).ljust(width)}  {value}")
    if failed is not None:
        raise failed


def demo_command(out: Path, *, workers: int | None, quiet: bool) -> None:
    """``terrain3d demo``."""
    with ConsoleReporter(quiet=quiet) as reporter:
        result = run_demo(out, reporter, workers=workers)
    if not quiet:
        _say_demo(result, out)


def _say_demo(result: DemoResult, out: Path) -> None:
    say("surface model against the truth")
    say_assessment(result.dsm)
    say("\nterrain model against the truth")
    say_assessment(result.dtm)
    say("\nchange between the two epochs")
    say_changes(result.change)
    say(f"of {result.events} true changes {result.found} were found")
    say(f"pictures and reports: {out / 'before' / 'report.html'}, {out / 'change' / 'report.html'}")
