"""CPU and memory of whole runs by stage, and how they grow with the size of the images.

    python tools/bench_run.py [1 4 16 100] [--scene open|town|mountain] [--out DIR] [--workers N]

Sizes are megapixels of each image. ``open`` makes pairs over open country of any size in little memory; the worlds of
the simulator, three views with lidar, need 1 GB for every 4 megapixels. Each run is a process of its own. Figures are
per megapixel of the surface model that was measured or filled. Peaks are of the whole process within the stage, where
the system can tell (Linux), else so far.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from open_country import write_pair

from terrain3d.cli import BLAS_THREADS
from terrain3d.config import load_scene
from terrain3d.pipeline.run import run_scene
from terrain3d.simulate.scene import write_scene

GSD = 0.5
VIEWS = 3
MOST_SIMULATED_MP = 8.0
MOST_SHARE = 0.4
RESET = Path("/proc/self/clear_refs")


@dataclass
class Stage:
    """What a stage took: seconds of wall clock and CPU, and the largest resident memory meanwhile, MB."""

    name: str
    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass(frozen=True)
class Run:
    """A finished run: megapixels of an image, and of the output; total of the stages; the stages."""

    image_mp: float
    output_mp: float
    stages: list[Stage]

    @property
    def cpu_s(self) -> float:
        return sum(s.cpu_s for s in self.stages)

    @property
    def peak_mb(self) -> float:
        return max(s.peak_mb for s in self.stages)


class Meter:
    """Reporter that measures every stage of a run."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self._start = (0.0, 0.0)
        self._name = ""

    def stage(self, name: str, steps: int = 1) -> None:
        self.close()
        reset_peak()
        self._name, self._start = name, (time.perf_counter(), time.process_time())

    def close(self) -> None:
        if self._name:
            wall, cpu = self._start
            here = Stage(self._name, time.perf_counter() - wall, time.process_time() - cpu, peak_mb())
            same = next((s for s in self.stages if s.name == here.name), None)
            if same is None:
                self.stages.append(here)
            else:
                same.wall_s, same.cpu_s = same.wall_s + here.wall_s, same.cpu_s + here.cpu_s
                same.peak_mb = max(same.peak_mb, here.peak_mb)
        self._name = ""

    def step(self) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        print(f"warning: {text}", file=sys.stderr)

    def overall(self, share: float, left_s: float) -> None:
        pass


def reset_peak() -> None:
    """Forget the peak of this process."""
    if os.access(RESET, os.W_OK):
        RESET.write_text("5")


def peak_mb() -> float:
    """Largest resident memory since the last reset."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("megapixels", type=float, nargs="*", default=[1.0, 2.25, 4.0])
    options.add_argument("--scene", choices=("open", "town", "mountain"), default="open")
    options.add_argument("--out", type=Path, help="keep scenes and results here, and use scenes that are there")
    options.add_argument("--workers", type=int, default=os.cpu_count())
    options.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.measure is not None:
        measure(given.measure, given.out, given.workers)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary)
        warm_up(folder, given.scene, given.workers)
        runs = [benchmark(folder, given.scene, mp, given.workers) for mp in sorted(given.megapixels)]
    growth(runs)


def benchmark(folder: Path, kind: str, megapixels: float, workers: int) -> Run:
    here = folder / f"{kind}_{megapixels:g}"
    scene = here / "scene.yaml"
    if not scene.exists():
        make_scene(here, kind, megapixels)
    run = child(scene, here / "out", workers)
    table(run, workers)
    return run


def warm_up(folder: Path, kind: str, workers: int) -> None:
    """A small run, so that nothing is compiled in those that count."""
    here = folder / f"{kind}_warm"
    if not (here / "scene.yaml").exists():
        make_scene(here, kind, 0.2)
    child(here / "scene.yaml", here / "out", workers)


def make_scene(folder: Path, kind: str, megapixels: float) -> None:
    size_px = round(1000 * megapixels**0.5)
    start = time.process_time()
    if kind == "open":
        write_pair(folder, size_px, gsd=GSD)
    elif megapixels > MOST_SIMULATED_MP:
        sys.exit(
            f"the simulator's worlds are held in memory: at most {MOST_SIMULATED_MP:g} megapixels, or --scene open"
        )
    else:
        # heading 190 degrees: the image that holds the square world is wider by cosine and sine of 10 degrees
        write_scene(folder, kind, size_px * GSD / 1.16, views=VIEWS, gsd=GSD)
    print(f"{folder.name}: scene made in {time.process_time() - start:.0f} CPU s", flush=True)


def child(scene: Path, out: Path, workers: int) -> Run:
    command = [sys.executable, __file__, "--measure", str(scene), "--out", str(out), "--workers", str(workers)]
    as_commands = dict.fromkeys(BLAS_THREADS, "1") | os.environ
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=as_commands)
    if done.returncode != 0:
        sys.exit(f"the run of {scene} failed")
    found = json.loads(done.stdout)
    return Run(found["image_mp"], found["output_mp"], [Stage(**s) for s in found["stages"]])


def measure(scene: Path, out: Path, workers: int) -> None:
    """Run a scene in this process and print what it took."""
    meter = Meter()
    result = run_scene(load_scene(scene), out, meter, workers=workers)
    meter.close()
    image, cells = result.views[0].image, result.cells
    json.dump(
        {
            "image_mp": image.height * image.width / 1e6,
            "output_mp": (1 - cells["nodata_share"]) * cells["width"] * cells["height"] / 1e6,
            "stages": [asdict(s) for s in meter.stages],
        },
        sys.stdout,
    )


def table(run: Run, workers: int) -> None:
    print(f"\nimages of {run.image_mp:.2f} megapixels, output of {run.output_mp:.2f}, {workers} workers, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"{'stage':28s}{'wall s':>9s}{'CPU s':>9s}{'CPU s/MP':>10s}{'share':>8s}{'peak MB':>9s}")
    for s in run.stages:
        share = s.cpu_s / run.cpu_s
        mark = "  more than 40 %" if share > MOST_SHARE else ""
        print(f"{s.name:28s}{s.wall_s:9.1f}{s.cpu_s:9.1f}{s.cpu_s / run.output_mp:10.3f}{share:8.0%}"
              f"{s.peak_mb:9.0f}{mark}")  # fmt: skip
    wall = sum(s.wall_s for s in run.stages)
    print(
        f"{'all':28s}{wall:9.1f}{run.cpu_s:9.1f}{run.cpu_s / run.output_mp:10.3f}{'':8s}{run.peak_mb:9.0f}", flush=True
    )


def growth(runs: list[Run]) -> None:
    """Each size against the smallest."""
    if len(runs) < 2:
        return
    first = runs[0]
    names = [s.name for s in first.stages]
    print(f"\nagainst images of {first.image_mp:.2f} megapixels")
    print(f"{'image MP':>10s}{'output MP':>11s}{'CPU s/MP':>10s}{'times':>7s}{'peak MB':>9s}{'MB/MP more':>12s}"
          "   stages whose CPU per megapixel grows most")  # fmt: skip
    for run in runs:
        more = run.output_mp - first.output_mp
        rate = (run.peak_mb - first.peak_mb) / more if more > 0 else 0.0
        factors = {
            name: a.cpu_s / run.output_mp / (b.cpu_s / first.output_mp)
            for name in names for a in run.stages for b in first.stages
            if a.name == b.name == name and a.cpu_s > 0.02 * run.cpu_s and b.cpu_s > 0
        }  # fmt: skip
        worst = sorted(factors.items(), key=lambda f: -f[1])[:3]
        print(f"{run.image_mp:10.2f}{run.output_mp:11.2f}{run.cpu_s / run.output_mp:10.3f}"
              f"{run.cpu_s / run.output_mp / (first.cpu_s / first.output_mp):7.2f}{run.peak_mb:9.0f}{rate:12.1f}   "
              + ", ".join(f"{n} x {f:.2f}" for n, f in worst if run is not first))  # fmt: skip


if __name__ == "__main__":
    main()
