"""The demo: a small town made by the simulator, run in both epochs, compared with its truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shapely import Polygon, unary_union

from terrain3d.assess import Assessment, assess
from terrain3d.change.result import ChangeOptions, ChangeResult
from terrain3d.config import load_scene
from terrain3d.pipeline.change import run_change
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.run import run_scene
from terrain3d.simulate.scene import write_scene

SIZE_M = 400.0
SEED = 1
SHARE_FOUND = 0.3  # of an event's outline that a reported change must cover


@dataclass(frozen=True)
class DemoResult:
    """Accuracy of the first epoch's surface and terrain, the change, and how many of the true events were found."""

    dsm: Assessment
    dtm: Assessment
    change: ChangeResult
    events: int
    found: int


def run_demo(out: Path, reporter: Reporter, *, workers: int | None = None) -> DemoResult:
    """Simulate, run and assess; everything lies under ``out``. Raises Terrain3dError."""
    reporter.stage("simulation")
    scene = write_scene(out / "scene", "town", SIZE_M, SEED, epochs=2)
    for epoch, name in zip(scene.epochs, ("before", "after"), strict=True):
        run_scene(load_scene(epoch.config), out / name, reporter, workers=workers)
    change = run_change(out / "before", out / "after", out / "change", ChangeOptions(), reporter)
    truth = scene.epochs[0].truth
    reported = [r.polygon for r in change.regions]
    outlines = [unary_union([Polygon(ring) for ring in e.outline]) for e in scene.events]
    found = sum(o.intersection(unary_union(reported)).area > SHARE_FOUND * o.area for o in outlines)
    return DemoResult(
        assess(out / "before", truth["dsm"], truth["class"]),
        assess(out / "before" / "dtm.tif", truth["dtm"], truth["class"]),
        change,
        len(outlines),
        found,
    )
