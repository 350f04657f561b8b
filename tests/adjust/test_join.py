"""Images that join a network of which the cameras stay, on exact synthetic ties."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from terrain3d.adjust import join
from terrain3d.adjust.bundle import adjust
from terrain3d.adjust.join import Begun, joined
from terrain3d.adjust.network import Network
from terrain3d.adjust.ties import Ties
from terrain3d.image.view import View
from terrain3d.io.images import ImageFile
from tests.adjust.test_bundle import CRS, THREE, Shot, disagreement, ground, observe, shots

PAIRS = [("0", "1"), ("0", "2"), ("1", "2")]


def network(some: list[Shot], ties: Ties, names: str) -> Network:
    """Network of some views adjusted together."""
    image = ImageFile(Path("x.tif"), some[0].exact.lines, some[0].exact.samples, 0.0, "uint16", (1,))
    found = adjust([s.delivered for s in some], ties, 540.0)
    views = [View(n, image, c) for n, c in zip(names, found.cameras, strict=True)]
    low, high = np.percentile(found.points[:, 2], [1, 99])
    return Network(views, ties, found, (low, high), (1.0,) * len(views))


def begun(some: list[Shot], ties: Ties, names: str) -> Begun:
    return Begun(network(some, ties, names), tuple(names), tuple(names))


@cache
def three() -> tuple[list[Shot], Ties, Begun]:
    """Three views, what they saw of some points, and their adjustment."""
    views = shots(THREE, 4)
    ties = observe(views, ground(300, 5), 0.1, 6)
    return views, ties, begun(views, ties, "012")


@cache
def two() -> Begun:
    """Adjustment of the first two of the views."""
    views, ties, _ = three()
    return begun(views[:2], of_views(ties, [0, 1]), "01")


def of_views(ties: Ties, wanted: list[int]) -> Ties:
    here = np.isin(ties.view, wanted)
    return Ties(np.searchsorted(wanted, ties.view[here]), ties.track[here], ties.line[here], ties.sample[here])


def test_joined__earlier_cameras_stay_and_the_new_one_fits_them() -> None:
    (views, ties, new), said = three(), list[str]()
    old = begun([views[0], views[2]], of_views(ties, [0, 2]), "02")  # the image in between comes later
    found = joined(old, new, PAIRS, CRS, said.append)
    assert found is not None and found.grown and found.marks == ("0", "1", "2") and found.begun == ("0", "2")
    cameras = found.network.adjustment.cameras
    assert (cameras[0], cameras[2]) == old.network.adjustment.cameras
    assert disagreement(views, cameras) < 0.05
    assert found.network.heights == old.network.heights
    assert found.network.adjustment.rms_after_px[::2] == old.network.adjustment.rms_after_px
    assert "adjustment kept, 1 tied to it" in said[0]
    assert joined(found, new, PAIRS, CRS, said.append) is found
    again = joined(old, new, PAIRS, CRS, said.append)
    assert again is not None and again.network.adjustment.cameras == cameras


def test_joined__an_image_that_does_not_fit_makes_all_anew() -> None:
    old, (_, _, new), said = two(), three(), list[str]()
    first, second = old.network.adjustment.cameras
    sample = first.correction.sample
    wrong = first.corrected(replace(first.correction, sample=(sample[0], sample[1] + 1.5, sample[2])))
    adjustment = replace(old.network.adjustment, cameras=(wrong, second))
    bent = replace(old, network=replace(old.network, adjustment=adjustment))
    assert joined(bent, new, PAIRS, CRS, said.append) is None
    assert "adjustment anew: 2 does not fit, " in said[0]
    assert joined(new, old, PAIRS, CRS, said.append) is None
    assert "have changed, are gone" in said[1]
    assert joined(old, old, PAIRS, CRS, said.append) is old and len(said) == 2


def test_joined__heights_that_all_images_together_contradict_make_all_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    old, (_, _, new), said = two(), three(), list[str]()
    monkeypatch.setattr(join, "AGREES", 1e-3)
    assert joined(old, new, PAIRS, CRS, said.append) is None
    assert said[0].startswith("adjustment anew: with 2 heights would move by up to 0.0")
