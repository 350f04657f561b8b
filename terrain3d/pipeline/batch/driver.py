"""A batch from its area file to tiles: plan, stages that see everything, blocks, tiles; what fails is left out."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from terrain3d.errors import ConfigError, OutputError, Terrain3dError
from terrain3d.io.atomic import output_error, write_json, write_text
from terrain3d.io.objects import Desk, DeskShelf, Objects, free_bytes
from terrain3d.io.rasters import bounded_cache
from terrain3d.pipeline.batch.area import Area
from terrain3d.pipeline.batch.catalog import (
    CHANGE,
    WRITTEN,
    ChangeSet,
    remove_tile,
    write_catalog,
    write_logs,
    write_mosaics,
)
from terrain3d.pipeline.batch.engine import BatchEngine, BlocksFailed, place_of
from terrain3d.pipeline.batch.executors import Executor
from terrain3d.pipeline.batch.features import AreaFeatures
from terrain3d.pipeline.batch.inputs import IMAGE, LIDAR, Inputs, blamed, open_inputs
from terrain3d.pipeline.batch.keys import Keys
from terrain3d.pipeline.batch.manifest import Manifest, Problem, TileState, open_manifest
from terrain3d.pipeline.batch.origins import lineage_of, newest
from terrain3d.pipeline.batch.plan import Plan, make_plan
from terrain3d.pipeline.batch.tile import EMPTY, TILES, TileItem, files_of, tile_grid, tile_writer
from terrain3d.pipeline.batch.watch import Watch
from terrain3d.pipeline.batch.worker import Products
from terrain3d.pipeline.products import water_layers
from terrain3d.pipeline.progress import Recorder, Reporter
from terrain3d.pipeline.quality import quality
from terrain3d.pipeline.result import RunResult
from terrain3d.pipeline.run import compute
from terrain3d.pipeline.spool import Spool
from terrain3d.pipeline.trees import tree_layers
from terrain3d.raster import Bounds

MANIFEST, WORK, PLAN, LOG, LOCK = "manifest.sqlite", "work", "plan.json", "batch.log", ".lock"
LOST = "lost area"
REACH = 400.0  # metres around a part without surface in which heights may differ for it


@dataclass(frozen=True)
class BatchOptions:
    """by_content: input files count by content, not by size and time. retry: what failed before is tried again.
    refresh: what is held from batch to batch is found anew.
    keep_work: intermediate objects stay, so that a later change redoes only what depends on it. most_s: seconds that
    one piece of work may take."""

    by_content: bool = False
    retry: bool = False
    refresh: bool = False
    keep_work: bool = True
    most_s: float = 3600.0


@dataclass(frozen=True)
class BatchResult:
    """tiles: state of each. problems: what was left out. worked: items of work done now, not known from before."""

    plan: Plan
    tiles: tuple[TileState, ...]
    problems: tuple[Problem, ...]
    worked: int
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing failed and nothing was left out."""
        return not self.problems and all(t.state in ("done", EMPTY) for t in self.tiles)


def plan_batch(area: Area, out: Path, reporter: Reporter) -> tuple[Plan, Inputs]:
    """The plan of an area, written to ``out``. Raises Terrain3dError."""
    with _locked(out):
        known: list[Problem] = []
        if (out / MANIFEST).is_file():
            with open_manifest(out / MANIFEST) as manifest:
                known = manifest.problems()
        return _plan(area, out, known, reporter)


def run_batch(
    area: Area, out: Path, reporter: Reporter, executor: Executor, options: BatchOptions,
    show: Callable[[Plan, Inputs], None] = lambda plan, inputs: None,
) -> BatchResult:  # fmt: skip
    """Do all of an area that is not done yet. show: is told the plan before work starts.

    Raises Terrain3dError where nothing can go on (configuration, full disk, fewer than two usable images); what was
    finished stays and is not done again.
    """
    out = out.resolve()  # workers elsewhere have folders of their own
    with _locked(out), open_manifest(out / MANIFEST) as manifest, bounded_cache():
        recorder = Watch(reporter, out / LOG, manifest)
        result: BatchResult | None = None
        try:
            if options.retry:
                manifest.clear_problems()
            if options.refresh:
                manifest.let_go()
            plan, inputs = _plan(area, out, manifest.problems(), recorder)
            for problem in inputs.problems:
                manifest.add_problem(problem)
            show(plan, inputs)
            recorder.expect(plan.core_s, executor.workers())
            recorder.note(f"{executor.where()}")
            _check_space(plan, out, recorder)
            result = _settle(area, plan, inputs, out, recorder, executor, manifest, options)
            return result
        finally:
            recorder.end(finished=result is not None)


def _plan(area: Area, out: Path, known: list[Problem], reporter: Reporter) -> tuple[Plan, Inputs]:
    for model in area.previous:
        if model.path.is_relative_to(out.resolve()):
            raise ConfigError("previous model lies in the folder of the results, which change it", where=model.path,
                              fix="give another --out")  # fmt: skip
    reporter.stage("inputs", len(area.scene.images))
    inputs = open_inputs(area, known, reporter.step)
    plan = make_plan(area, inputs)
    write_json(out / PLAN, plan.as_json(inputs))
    completed = area.scene.completed() | {"tiles": area.tiles.model_dump(exclude_none=True)}
    if area.sheets is not None:
        completed["tiles"]["sheets"] = str(area.sheets)
    told = [{"name": p.name, "path": str(p.path), "vertical": p.vertical} for p in area.previous]
    completed["previous"] = [{k: v for k, v in entry.items() if v is not None} for entry in told]
    write_text(out / "config.yaml", yaml.safe_dump(completed, sort_keys=False, allow_unicode=True))
    return plan, inputs


def _settle(
    area: Area, plan: Plan, inputs: Inputs, out: Path, recorder: Watch, executor: Executor, manifest: Manifest,
    options: BatchOptions,
) -> BatchResult:  # fmt: skip
    """Work until all that can be done is done: each turn leaves out what failed in the one before."""
    keys = Keys(by_content=options.by_content, own=out)
    manifest.forget_problems((IMAGE, LIDAR, LOST))
    manifest.set_tiles([TileState(t.sheet.code, "waiting", t.sheet.bounds) for t in plan.tiles])
    lost = [p.bounds for p in manifest.problems() if p.what == LOST and p.bounds is not None]
    worked = 0
    while True:
        desk = Desk(Objects(out / WORK / "objects"), at_once=True)
        engine = BatchEngine(desk, manifest, executor, keys, out, options.most_s)
        recorder.follow(engine.worked)
        try:
            result, spool = compute(
                inputs.scene, inputs.views, inputs.limits, inputs.lidar, inputs.reference, DeskShelf(desk), engine,
                recorder, lost,
            )  # fmt: skip
            tiles = _write_tiles(plan, inputs, result, spool, desk, engine, manifest, recorder)
            break
        except BlocksFailed as failed:
            lost += _leave_out(failed, lost, manifest, recorder)
        except Terrain3dError as error:
            bad = blamed(error, inputs.scene)
            if bad is None:
                raise
            manifest.add_problem(Problem(*bad, str(error)))
            recorder.warn(f"left out: {error}")
            plan, inputs = _plan(area, out, manifest.problems(), recorder)
            manifest.set_tiles([TileState(t.sheet.code, "waiting", t.sheet.bounds) for t in plan.tiles])
        worked += engine.done
    manifest.set_tiles(tiles)
    recorder.stage("catalog")
    figures = quality(result)
    write_json(out / "quality.json", {k: v for k, v in figures.items() if k not in ("seconds", "peak_memory_mb")})
    sums, layers = write_mosaics(out, tiles, manifest)
    changes = _changes(area, plan, inputs, tiles, sums, desk, engine, manifest, recorder)
    worked += engine.done
    manifest.keep_only(engine.seen)
    write_logs(out, manifest, tiles)
    write_catalog(out, inputs.scene.config.name, tiles, sums, layers, changes)
    _tidy(out, desk, engine, manifest, options)
    return BatchResult(plan, tuple(tiles), tuple(manifest.problems()), worked, tuple(recorder.warnings))


def _leave_out(failed: BlocksFailed, lost: list[Bounds], manifest: Manifest, recorder: Recorder) -> list[Bounds]:
    """Bounds of the blocks that failed, so that the rest can go on without them; all that a block sees if leaving out
    its core was not enough. Raises OutputError if that did not help either."""
    out = []
    for block, error in failed.failed:
        core, whole = block.part(*block.core).grid.bounds, block.grid.bounds
        bounds = core if core not in lost else whole
        if bounds in lost:
            raise OutputError(
                f"{failed.stage} fails at {place_of(block)} also without its heights ({error})", fix="report it"
            )
        out.append(bounds)
        place = f"{failed.stage} {place_of(block)}"
        manifest.add_problem(Problem(LOST, place, error, bounds))
        recorder.warn(f"left out: {place}: {error}")
    return out


def _write_tiles(
    plan: Plan, inputs: Inputs, result: RunResult, spool: Spool, desk: Desk, engine: BatchEngine, manifest: Manifest,
    recorder: Recorder,
) -> list[TileState]:  # fmt: skip
    """Files of all tiles; their states."""
    problems = [p for p in manifest.problems() if not p.what.startswith("tile")]
    like, shelf = result.surfaces.dsm.grid, DeskShelf(desk)
    recorder.stage("trees")
    features = AreaFeatures(
        tree_layers(result.surfaces, engine), water_layers(result.surfaces.waters, inputs.reference)
    )
    items = []
    for t in plan.tiles:
        near = [p for p in problems if _meet(p.bounds, t.sheet.bounds)]
        note = "; ".join(sorted({p.line for p in near}))[:1000]
        grid = tile_grid(t.sheet, like)
        own = features.within(t.sheet.outline, grid, shelf)
        items.append(TileItem(t.sheet, grid, lineage_of(t, inputs, result), own, note))
    recorder.stage("tiles", len(items))
    found: list[Products | None] = [*engine.each(tile_writer(result, spool, shelf), items, recorder)]
    errors = {p.place: p.message for p in manifest.problems() if p.what.startswith("tile")}
    states = []
    for item, products in zip(items, found, strict=True):
        if products is None:
            state, note = "failed", errors.get(item.code, "")
        elif products.found == EMPTY:
            state, note = EMPTY, item.note
        else:
            state, note = ("incomplete" if item.note else "done"), item.note
        if state in (EMPTY, "failed"):
            remove_tile(desk.out / TILES / item.code)
        states.append(TileState(item.code, state, item.sheet.bounds, note))
    features.write(desk.out, inputs.reference.horizontal, max(i.lineage.end for i in items))
    for code in files_of(desk.out / TILES) - {i.code for i in items}:
        remove_tile(desk.out / TILES / code)
    return states


def _changes(
    area: Area, plan: Plan, inputs: Inputs, tiles: list[TileState], sums: dict[str, str], desk: Desk,
    engine: BatchEngine, manifest: Manifest, recorder: Recorder,
) -> list[ChangeSet]:  # fmt: skip
    """Change since each of the previous models that can be compared; folders of others go."""
    with_data = {t.code for t in tiles if t.state in WRITTEN}
    sheets = [t.sheet for t in plan.tiles if t.sheet.code in with_data]
    name, end, found = inputs.scene.config.name, newest(inputs), []
    for model in area.previous if sheets else ():
        from terrain3d.pipeline.batch.previous import changes_since  # most batches need none of it

        recorder.stage(f"change since {model.name}")
        found.append(changes_since(model, sheets, sums, plan.crs, end, desk, engine, manifest, name, recorder))
    made = [c for c in found if c is not None]
    for folder in (desk.out / CHANGE).glob("*"):
        if folder.name not in [c.name for c in made]:
            remove_tile(folder)
    return made


def _meet(a: Bounds | None, b: Bounds) -> bool:
    """Whether something at ``a`` may be felt at ``b``."""
    return a is not None and a[0] < b[2] + REACH and b[0] < a[2] + REACH and a[1] < b[3] + REACH and b[1] < a[3] + REACH


def _check_space(plan: Plan, out: Path, recorder: Recorder) -> None:
    needed, free = plan.work_bytes + plan.product_bytes, free_bytes(out)
    if free < needed and not (out / WORK).exists():
        recorder.warn(f"{out}: some {needed / 1e6:.0f} MB may be needed, {free / 1e6:.0f} MB are free")


def _tidy(out: Path, desk: Desk, engine: BatchEngine, manifest: Manifest, options: BatchOptions) -> None:
    """Delete what no product rests on."""
    keep = set(engine.held)
    if options.keep_work:
        for record in manifest.records():
            keep |= record.objects
    desk.objects.clear(keep)
    for path in (out / WORK / "stages").glob("*"):
        path.unlink(missing_ok=True)


def is_worked_on(out: Path) -> bool:
    """Whether a batch works in the folder right now."""
    try:
        with (out / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """The folder for this batch alone. Raises OutputError, ConfigError if another batch works in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK).open("a")
    except OSError as error:
        raise output_error(out, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError("another batch works in this folder", where=out, fix="wait for it, or end it") from error
        yield
