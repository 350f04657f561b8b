"""The vector kernel gives the bits of its plain twin on every kind of x86 host, with that host's registers.

LLVM compiles for another processor in a process of its own; what this machine cannot run is skipped.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from llvmlite import binding

PROGRAM = """
import hashlib
import re
import numpy as np
from terrain3d.stereo import sgm
from terrain3d.stereo.sgm_plain import match_census_plain

rng = np.random.default_rng(5)
left = rng.integers(0, 2**32, (21, 170), dtype=np.uint32)
right = np.roll(left, -17, axis=1) ^ (rng.random(left.shape) < 0.2).astype(np.uint32) * np.uint32(0xF0F0)
p1, p2 = rng.integers(3, 12, left.shape), rng.integers(14, sgm.MAX_P2 + 1, left.shape)
for disparities in (64, 128):
    for match in (sgm.match_census, match_census_plain):
        found = match(left, right, disparities, p1=p1, p2=p2)
        parts = (found.integer, found.disparity, found.best, found.second)
        print("bits", disparities, hashlib.sha256(b"".join(a.tobytes() for a in parts)).hexdigest())
code = "".join(sgm._sgm.inspect_asm().values())
print("registers", *(len(re.findall(f"%{r}[0-9]+", code)) for r in ("zmm", "ymm", "xmm")))
"""


@dataclass(frozen=True)
class Host:
    """A processor as LLVM names it, the features of this machine that are needed to run its code, and the widest
    vector registers that the kernel must use there."""

    processor: str
    needs: tuple[str, ...]
    widest: str


HOSTS = (
    Host("znver4", ("avx512f", "avx512bw", "avx512vl", "avx512vpopcntdq", "avx512bitalg", "gfni"), "zmm"),
    Host("x86-64-v4", ("avx512f", "avx512bw", "avx512vl", "avx512dq"), "zmm"),
    Host("haswell", ("avx2", "bmi2", "fma"), "ymm"),
    Host("nehalem", ("sse4.2", "popcnt"), "xmm"),
    Host("x86-64", ("sse2",), "xmm"),
)


def run_as(host: Host, cache: Path) -> list[list[str]]:
    """Words of the lines that the program prints when compiled for a host."""
    environment = os.environ | {
        "NUMBA_CPU_NAME": host.processor,
        "NUMBA_CPU_FEATURES": "",  # those of the named processor and no more
        "NUMBA_CACHE_DIR": str(cache),
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="for x86 processors")
@pytest.mark.parametrize("host", HOSTS, ids=lambda h: h.processor)
def test_sgm__bit_equal_to_plain_twin_on(host: Host, tmp_path: Path) -> None:
    here = binding.get_host_cpu_features()
    if missing := [f for f in host.needs if not here.get(f)]:
        pytest.skip(f"this machine has no {', '.join(missing)}")
    lines = run_as(host, tmp_path)
    for disparities in ("64", "128"):
        bits = {line[2] for line in lines if line[:2] == ["bits", disparities]}
        assert len(bits) == 1, f"kernel and plain twin differ at {disparities} disparities"
    counts = dict(zip(("zmm", "ymm", "xmm"), map(int, next(x for x in lines if x[0] == "registers")[1:]), strict=True))
    widest = next(r for r in ("zmm", "ymm", "xmm") if counts[r] > 0)
    assert widest == host.widest
