"""``terrain3d run``."""

from __future__ import annotations

from pathlib import Path

from terrain3d.config import load_scene
from terrain3d.console import ConsoleReporter, say
from terrain3d.pipeline.placement import placement
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
        say(f"lidar: none given; heights against each other as the sigma says, {_as_a_whole(result)}")
    else:
        say(f"lidar: {int(r.used.sum())} returns used; shift {r.dx:.2f} E, {r.dy:.2f} N, {r.dz:.2f} m up")
        if not r.applied:
            say(f"lidar moves nothing: {_as_a_whole(result)}")
        if r.before is not None and r.after is not None:
            bias = f"bias {r.before.bias:.2f} -> {r.after.bias:.2f} m"
            say(f"held-out returns: {bias}, NMAD {r.after.nmad:.2f} m (n = {r.after.n})")
    say(f"results: {out} (open report.html)")


def _as_a_whole(result: RunResult) -> str:
    return f"as a whole within {placement(result).height:.2g} m (1-sigma) by the pointing of the images"
