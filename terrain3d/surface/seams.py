"""Where one image of a mosaic ends and the next begins: along cells where the two agree.

The strip between what must stay and what must be replaced is flooded from both sides, in the order of disagreement:
both sides take what they disagree on first, and meet where they differ least (Soille 2006, Morphological image
compositing, IEEE TPAMI 28(5)). Linear in the number of cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
LEVELS = 64
_OUTSIDE, _KEEP, _TAKE, _OPEN = 0, 1, 2, 3


def parted(keep: Bools, take: Bools, between: Bools, disagreement: Singles) -> Bools:
    """Cells of ``take`` and those of ``between`` that go with them, (h, w).

    disagreement: 0 to 1 (larger counts as 1) of the two images where they overlap.
    """
    label = np.where(take, _TAKE, np.where(between, _OPEN, np.where(keep, _KEEP, _OUTSIDE))).astype(np.uint8)
    level = np.minimum(np.nan_to_num(disagreement, nan=1.0) * (LEVELS - 1), LEVELS - 1).astype(np.uint8)
    _flood(label, level)
    return np.asarray(label == _TAKE)


@njit(**_JIT)
def _flood(label: NDArray[np.uint8], level: NDArray[np.uint8]) -> None:
    """Give every open cell the label of a side, from the highest level down, first come first served."""
    h, w = label.shape
    following = np.full(h * w, np.int32(-1))
    head, tail = np.full(LEVELS, np.int32(-1)), np.full(LEVELS, np.int32(-1))
    top = LEVELS - 1
    for i in range(h):
        for j in range(w):
            if label[i, j] != _KEEP and label[i, j] != _TAKE:
                continue
            beside = (
                (i > 0 and label[i - 1, j] == _OPEN)
                or (j > 0 and label[i, j - 1] == _OPEN)
                or (i + 1 < h and label[i + 1, j] == _OPEN)
                or (j + 1 < w and label[i, j + 1] == _OPEN)
            )
            if beside:
                at = np.int32(i * w + j)
                if head[top] < 0:
                    head[top] = at
                else:
                    following[tail[top]] = at
                tail[top] = at
    for now in range(top, -1, -1):
        while head[now] >= 0:
            at = head[now]
            head[now] = following[at]
            i, j = at // w, at % w
            for k in range(4):
                y, x = i + (k == 0) - (k == 1), j + (k == 2) - (k == 3)
                if y < 0 or x < 0 or y >= h or x >= w or label[y, x] != _OPEN:
                    continue
                label[y, x] = label[i, j]
                to, queue = np.int32(y * w + x), min(int(level[y, x]), now)
                if head[queue] < 0:
                    head[queue] = to
                else:
                    following[tail[queue]] = to
                tail[queue] = to
                following[to] = -1
