"""The reference of the results: what a configured CRS says must be what the files hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from terrain3d.config import OutputConfig, load_scene
from terrain3d.errors import FrameError
from terrain3d.pipeline.load import load_views
from terrain3d.pipeline.output_crs import datum_warnings, output_reference
from terrain3d.simulate.scene import SceneFiles


@pytest.mark.parametrize(
    ("crs", "says"),
    [
        ("EPSG:32632+5773", "names a vertical reference too, heights are to be over 'ellipsoid'"),
        ("EPSG:7415", "names a vertical reference too"),
        ("EPSG:31467", "is on Bessel 1841, so heights over the ellipsoid of WGS 84 cannot go with it"),
        ("EPSG:2263", "is not projected in metres"),
    ],
)
def test_output_reference__a_crs_that_heights_would_contradict(crs: str, says: str) -> None:
    with pytest.raises(FrameError, match=says):
        output_reference(OutputConfig(crs=crs), [], 0.0, Path())


def test_output_reference__an_old_datum_takes_heights_over_a_geoid() -> None:
    reference = output_reference(OutputConfig(crs="EPSG:31467", vertical="egm96"), [], 0.0, Path())
    assert (reference.horizontal, reference.vertical.name) == ("EPSG:31467", "egm96")


def test_datum_warnings__how_exact_and_where_the_datum_is_in_use(hamlet: SceneFiles) -> None:
    views = load_views(load_scene(hamlet.config))  # at Innsbruck

    def of(crs: str) -> list[str]:
        return datum_warnings(OutputConfig(crs=crs), crs, views, 500.0)

    (line,) = of("EPSG:31254")
    assert line.startswith("output crs 'EPSG:31254' is on another datum") and "is right within 1.5 m" in line
    line, other = of("EPSG:30169")
    assert "is right within 9 m" in line and "'EPSG:30169' is not in use at longitude 11.38" in other
    assert of("EPSG:32632") == of("EPSG:25832") == []
