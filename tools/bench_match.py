"""Speed and accuracy of the matcher against its rivals, on one synthetic pair, in one run.

    python tools/bench_match.py [--size 1000] [--disparities 64 128 256] [--noise 1 4] [--pandora PYTHON]

Everyone matches every pixel of the same pair on one thread (OpenCV, which leaves out the first columns, gets as many
more on the left); CPU seconds are the best of several calls that take turns. ``ns`` is nanoseconds per pixel,
disparity and path. ``ratio`` is CPU seconds against terrain3d's census and SGM. Accuracy is over the left pixels that
both images see: ``bad-1`` counts missing ones and those off by more than a pixel. PYTHON is an interpreter that has
pandora and pandora-plugin-libsgm, this one if it has them; without them that row is left out. Times of another
processor: set NUMBA_CPU_NAME.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from llvmlite import binding
from numpy.typing import NDArray
from rectified_pair import Box, Pair, expose, render, smooth_field, texture

from terrain3d.stereo.census import census
from terrain3d.stereo.denoise import denoised
from terrain3d.stereo.match import match_images, penalties, trusted
from terrain3d.stereo.sgm import SgmBuffers, match_census

Singles = NDArray[np.float32]
PATHS = 8
CONFIDENT = "  + confidence: as match_tile"
PEER = Path(__file__).with_name("pandora_match.py")


@dataclass(frozen=True)
class Row:
    """A line of the table: ``seconds`` CPU of one call, ``error`` over the visible pixels (NaN: missing)."""

    name: str
    paths: int
    seconds: float
    error: Singles | None


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--size", type=int, default=1000, help="rows and columns of the pair")
    options.add_argument("--disparities", type=int, nargs="+", default=[64, 128, 256])
    options.add_argument("--noise", type=float, nargs="+", default=[1.0, 4.0], help="times that of a good sensor")
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--pandora", help="Python interpreter that has pandora")
    given = options.parse_args()
    if given.pandora is None and all(find_spec(name) for name in ("pandora", "pandora_plugin_libsgm")):
        given.pandora = sys.executable
    cv2.setNumThreads(1)
    processor = os.environ.get("NUMBA_CPU_NAME") or binding.get_host_cpu_name()
    print(f"{platform.machine()} {processor}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, numpy "
          f"{np.__version__}, OpenCV {cv2.__version__}, one thread")  # fmt: skip
    for disparities in given.disparities:
        for noise in given.noise:
            compare(given.size, disparities, noise, given.repeats, given.seed, given.pandora)
        scaling(given.size, disparities)
    if given.pandora is None:
        print("pandora was not measured: give --pandora")


def town(size: int, disparities: int, seed: int) -> Pair:
    """Hills and houses whose disparities fill most of the range, contrast from full to a tenth."""
    rng = np.random.default_rng(seed)
    margin = disparities // 2 + 8
    columns = size + 2 * margin
    low, high = 4.0, disparities - 6.0
    ground = (low + 0.5 * (high - low) * smooth_field(rng, size, columns, size / 8)).astype(np.float32)
    contrast = 0.25 * np.clip(1.8 * smooth_field(rng, size, columns, 40.0) - 0.4, 0.1, 1.0)
    boxes = []
    for _ in range(int(60 * (size / 1000) ** 2)):
        height, width = rng.uniform(12, 90, 2)
        top, left = rng.uniform(0, size - height), rng.uniform(-disparities / 2, size + disparities / 2 - width)
        base = float(ground[int(top + height / 2), int((left + width / 2 + margin) * ground.shape[1] / columns)])
        boxes.append(
            Box(
                top, left, top + height, left + width, min(base + rng.uniform(4, 0.35 * (high - low)), high - 5),
                float(rng.uniform(-0.05, 0.05)), float(rng.uniform(-0.05, 0.05)), float(rng.uniform(0.12, 0.5)),
            )
        )  # fmt: skip
    light = 0.3 * (1 + contrast * texture(rng, size, columns))
    return render(ground, light.astype(np.float32), margin, boxes, 0.2 * texture(rng, size, columns))


def compare(size: int, disparities: int, noise: float, repeats: int, seed: int, pandora: str | None) -> None:
    pair, rng = town(size, disparities, seed), np.random.default_rng(seed)
    left = expose(pair.left, rng, noise=noise)
    right = expose(pair.right, rng, gain=2450.0, offset=130.0, noise=noise)
    errors: dict[str, Singles] = {}

    def scored(name: str, disparity: Singles) -> None:
        errors[name] = (disparity - pair.disparity)[pair.visible]

    buffers = SgmBuffers()
    words = census(denoised(left)[0]), census(denoised(right)[0])
    p1, p2 = penalties(left)

    def kernel() -> None:
        match_census(*words, disparities, p1=p1, p2=p2, buffers=buffers)

    def matched() -> Any:
        return match_census(
            census(denoised(left)[0]), census(denoised(right)[0]), disparities, p1=p1, p2=p2, buffers=buffers
        )

    found = matched()
    scored("terrain3d census + SGM", trusted(found.integer, found.disparity, left, right))

    def polished() -> None:
        scored(CONFIDENT, match_images(left, right, disparities, buffers).disparity)

    bytes_left, bytes_right = to_bytes(left, right)
    padded = [cv2.copyMakeBorder(b, 0, 0, disparities, 0, cv2.BORDER_REFLECT_101) for b in (bytes_left, bytes_right)]

    def opencv(label: str, mode: int, block: int) -> Callable[[], None]:
        matcher = cv2.StereoSGBM.create(
            0, disparities, block, 8 * block**2, 32 * block**2, disp12MaxDiff=1, speckleWindowSize=20, speckleRange=1,
            mode=mode,
        )  # fmt: skip

        def run() -> None:
            raw = matcher.compute(*padded)[:, disparities:]
            scored(label, np.where(raw >= 0, raw / np.float32(16), np.float32(np.nan)))

        return run

    tasks: list[tuple[str, int, Callable[[], Any]]] = [
        ("terrain3d SGM kernel alone", PATHS, kernel), ("terrain3d census + SGM", PATHS, matched),
        ("  + left-right, speckle, sub-pixel", PATHS, polished),
        ("OpenCV SGBM HH", 8, opencv("OpenCV SGBM HH", cv2.StereoSGBM_MODE_HH, 5)),
        ("OpenCV SGBM 3WAY", 3, opencv("OpenCV SGBM 3WAY", cv2.StereoSGBM_MODE_SGBM_3WAY, 5)),
    ]  # fmt: skip
    seconds = [np.inf] * len(tasks)
    for _ in range(repeats):
        for k, (_, _, work) in enumerate(tasks):
            start = time.process_time()
            work()
            seconds[k] = min(seconds[k], time.process_time() - start)
    rows = [Row(n, p, s, errors.get(n)) for (n, p, _), s in zip(tasks, seconds, strict=True)]
    rows.insert(3, Row(CONFIDENT, PATHS, rows[2].seconds, errors[CONFIDENT]))
    if pandora is not None:
        disparity, spent, version = peer(pandora, left, right, disparities)
        scored("pandora", disparity)
        rows.append(Row(f"pandora {version} + libsgm", PATHS, spent, errors["pandora"]))
    table(f"{size} x {size} px, {disparities} disparities, noise x {noise:g}", rows, size * size * disparities)


def to_bytes(left: Singles, right: Singles) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """OpenCV takes 8 bits: the same stretch for both images."""
    low, high = np.percentile(left, [0.5, 99.5])
    scaled = [np.clip((a - low) * (255 / (high - low)), 0, 255).astype(np.uint8) for a in (left, right)]
    return scaled[0], scaled[1]


def peer(python: str, left: Singles, right: Singles, disparities: int) -> tuple[Singles, float, str]:
    """Disparity, CPU seconds and version of pandora."""
    with tempfile.TemporaryDirectory() as folder:
        pair, result = Path(folder) / "pair.npz", Path(folder) / "result.npz"
        np.savez(pair, left=left, right=right)
        command = [python, str(PEER), str(pair), str(disparities), str(result)]
        alone = os.environ | {f"{n}_NUM_THREADS": "1" for n in ("OMP", "OPENBLAS", "NUMBA")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
        if done.returncode != 0:
            sys.exit(f"pandora failed:\n{done.stderr[-1500:]}")
        found = np.load(result)
        return found["disparity"], float(found["seconds"]), str(found["version"])


def table(title: str, rows: list[Row], volume: int) -> None:
    base = next(r.seconds for r in rows if r.name == "terrain3d census + SGM")
    print(f"\n{title}")
    print(f"{'':36s}{'CPU s':>8s}{'ns':>8s}{'ratio':>8s}{'bad-1 %':>10s}{'missing %':>11s}{'wrong %':>9s}"
          f"{'median px':>11s}{'NMAD px':>9s}")  # fmt: skip
    for r in rows:
        line = f"{r.name:36s}{r.seconds:8.3f}{1e9 * r.seconds / volume / r.paths:8.3f}{r.seconds / base:8.2f}"
        if r.error is not None:
            e = r.error[np.isfinite(r.error)]
            missing, wrong = 1 - e.size / r.error.size, (np.abs(e) > 1).mean()
            bad = 1 - (np.abs(e) <= 1).sum() / r.error.size
            spread = 1.4826 * np.median(np.abs(e - np.median(e)))
            line += f"{100 * bad:10.2f}{100 * missing:11.2f}{100 * wrong:9.2f}{np.median(np.abs(e)):11.3f}{spread:9.3f}"
        print(line, flush=True)


def scaling(size: int, disparities: int, calls: int = 4) -> None:
    """Work done by two threads, each with its own buffers, against one."""
    if (os.cpu_count() or 1) < 2:
        print("one core: two threads were not measured")
        return
    rng = np.random.default_rng(0)
    words = [rng.integers(0, 2**32, (size, size), dtype=np.uint32) for _ in range(2)]
    buffers = [SgmBuffers(), SgmBuffers()]

    def work(k: int) -> float:
        start = time.thread_time()
        for _ in range(calls):
            match_census(*words, disparities, p1=5, p2=16, buffers=buffers[k])
        return (time.thread_time() - start) / calls

    wall, cpu = [np.inf, np.inf], [np.inf, np.inf]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            for n in (1, 2):
                start = time.perf_counter()
                spent = max(pool.map(work, range(n)))
                wall[n - 1] = min(wall[n - 1], (time.perf_counter() - start) / n)
                cpu[n - 1] = min(cpu[n - 1], spent)
    print(
        f"two threads do {wall[0] / wall[1]:.2f} times the work of one; a call takes {cpu[1] / cpu[0]:.2f} times the "
        f"CPU (load {os.getloadavg()[0]:.1f}: with other work on the machine only the latter counts)"
    )


if __name__ == "__main__":
    main()
