"""The state of a batch from its manifest, for those who watch it."""

from __future__ import annotations

from dataclasses import dataclass

from terrain3d.pipeline.batch.manifest import DONE, Manifest
from terrain3d.pipeline.batch.watch import Progress, progress_of
from terrain3d.pipeline.progress import time_left

LISTED = 40


@dataclass
class StageState:
    """What a stage has done: items, failures, CPU seconds, largest memory of a worker."""

    done: int = 0
    failed: int = 0
    cpu_s: float = 0.0
    memory_mb: float = 0.0


def stages(manifest: Manifest) -> dict[str, StageState]:
    """By stage, in the order in which they began."""
    out: dict[str, StageState] = {}
    for record in manifest.records():
        state = out.setdefault(record.stage, StageState())
        state.done += record.state == DONE
        state.failed += record.state != DONE
        state.cpu_s += record.cpu_s
        state.memory_mb = max(state.memory_mb, record.memory_mb)
    return out


def status_lines(manifest: Manifest, *, working: bool) -> list[str]:
    """How far it is, tiles by state, stages with what they took, problems. working: whether a batch runs now."""
    tiles, problems = manifest.tiles(), manifest.problems()
    by_state: dict[str, list[str]] = {}
    for tile in tiles:
        by_state.setdefault(tile.state, []).append(tile.code)
    lines = [*_progress_lines(progress_of(manifest), working), f"tiles: {len(tiles)}"]
    for state, codes in sorted(by_state.items()):
        shown = ", ".join(codes[:LISTED]) + (", ..." if len(codes) > LISTED else "")
        lines.append(f"  {state}: {len(codes)} ({shown})")
    found = stages(manifest)
    wide = max(map(len, found), default=5)
    lines.append(f"{'stage':{wide}s}{'done':>8s}{'failed':>8s}{'CPU s':>10s}{'MB':>8s}")
    for name, s in found.items():
        lines.append(f"{name:{wide}s}{s.done:8d}{s.failed:8d}{s.cpu_s:10.1f}{s.memory_mb:8.0f}")
    lines += [p.line for p in problems[:LISTED]]
    if len(problems) > LISTED:
        lines.append(f"and {len(problems) - LISTED} more")
    return lines


def _progress_lines(p: Progress | None, working: bool) -> list[str]:
    if p is None:
        return []
    if working:
        return [
            f"working since {p.since} on {p.stage}, {p.done} of {p.total}",
            f"{p.share:.0%} of all work done, {time_left(p.left_s)} left (as of {p.at})",
        ]
    if p.ended:
        return [f"finished at {p.at}" if p.finished else f"not working; left off at {p.at}: start it again to go on"]
    return [f"not working; broke off in {p.stage} after {p.at}: start it again to go on"]
