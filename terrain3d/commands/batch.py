"""``terrain3d batch``."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from terrain3d.console import ConsoleReporter, say, say_table
from terrain3d.errors import ConfigError
from terrain3d.pipeline.batch.area import load_area
from terrain3d.pipeline.batch.driver import MANIFEST, BatchOptions, BatchResult, is_worked_on, plan_batch, run_batch
from terrain3d.pipeline.batch.executors import DaskWorkers, Executor, Processes
from terrain3d.pipeline.batch.inputs import Inputs
from terrain3d.pipeline.batch.manifest import open_manifest
from terrain3d.pipeline.batch.plan import Plan
from terrain3d.pipeline.batch.status import status_lines

LISTED = 40  # tiles and problems that are named one by one
DONE_WITH_FAILURES = 3


def batch_command(
    area: Path, out: Path, *, workers: int | None, memory_gb: float | None, minutes: float, scheduler: str | None,
    dry_run: bool, status: bool, retry_failed: bool, refresh: bool, by_content: bool, discard_work: bool, quiet: bool,
) -> None:  # fmt: skip
    """``terrain3d batch``."""
    if status:
        _say_status(out)
        return
    found = load_area(area)
    if dry_run:
        with ConsoleReporter(quiet=quiet) as reporter:
            plan, inputs = plan_batch(found, out, reporter)
        _say_plan(plan, inputs)
        return
    executor: Executor
    if scheduler is not None:
        executor = DaskWorkers(scheduler)
    else:
        limit = None if memory_gb is None else int(memory_gb * 2**30)
        executor = Processes(workers or os.cpu_count() or 1, limit)
    options = BatchOptions(by_content, retry_failed, refresh, not discard_work, 60 * minutes)
    try:
        with ConsoleReporter(quiet=quiet) as reporter:
            result = run_batch(
                found, out, reporter, executor, options, lambda p, i: None if quiet else _say_plan(p, i, executor)
            )
    finally:
        executor.close()
    if not quiet or not result.complete:
        _say_result(result, out)
    if not result.complete:
        raise typer.Exit(DONE_WITH_FAILURES)


def _say_plan(plan: Plan, inputs: Inputs, executor: Executor | None = None) -> None:
    pairs = sum(p.chosen for p in plan.pairs)
    lidar = len(inputs.scene.lidar)
    say(f"area: {len(inputs.views)} images, {pairs} pairs, {lidar} lidar files, {len(plan.tiles)} tiles")
    for name in plan.previous:
        over = sum(name in t.previous for t in plan.tiles)
        say(f"previous model {name}: over {over} tiles")
    if len(plan.tiles) <= LISTED:
        say_table(
            ["tile", "images", "pairs", "returns", "missing"],
            [
                [t.sheet.code, str(len(t.images)), str(len(t.pairs)), str(t.returns), t.missing or "-"]
                for t in plan.tiles
            ],
        )
    else:
        lacking = sum(bool(t.missing) for t in plan.tiles)
        say(f"tiles with something missing: {lacking} (see plan.json)")
    for problem in inputs.problems:
        say(f"left out: {problem.message}")
    say(
        f"estimate: {plan.core_s / 60:.1f} min of one core, {_size(plan.worker_mb * 1e6)} a worker, "
        f"{_size(plan.work_bytes)} of disk while it works, {_size(plan.product_bytes)} of results"
    )
    if executor is not None:
        say(f"workers: {executor.where()}")


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _say_result(result: BatchResult, out: Path) -> None:
    states: dict[str, int] = {}
    for tile in result.tiles:
        states[tile.state] = states.get(tile.state, 0) + 1
    say("tiles: " + ", ".join(f"{n} {state}" for state, n in sorted(states.items())))
    for problem in result.problems[:LISTED]:
        say(problem.line)
    if len(result.problems) > LISTED:
        say(f"and {len(result.problems) - LISTED} more: terrain3d batch --status")
    if result.problems:
        say("once that is mended, the same command with --retry-failed tries it again")
    say(f"results: {out} ({result.worked} items of work done now)")


def _say_status(out: Path) -> None:
    if not (out / MANIFEST).is_file():
        raise ConfigError("no batch has been started here", where=out, fix="leave --status out to start one")
    with open_manifest(out / MANIFEST, read_only=True) as manifest:
        for line in status_lines(manifest, working=is_worked_on(out)):
            say(line)
