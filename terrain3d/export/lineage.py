"""Where a product comes from: a JSON sidecar for programs, and ISO 19115 metadata in XML for catalogs.

The XML is the encoding of ISO/TS 19139:2007 (gmd), which catalogs read most widely.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import cv2
import numba
import numpy as np
import pyproj
import rasterio
import scipy

from terrain3d import __version__
from terrain3d.export.stac import bounds_lonlat
from terrain3d.io.atomic import write_bytes, write_json
from terrain3d.raster import Grid

GMD, GCO, GML = "http://www.isotc211.org/2005/gmd", "http://www.isotc211.org/2005/gco", "http://www.opengis.net/gml/3.2"
XLINK, METRE = "http://www.w3.org/1999/xlink", "urn:ogc:def:uom:EPSG::9001"
CODES = "http://standards.iso.org/iso/19139/resources/gmxCodelists.xml"


@dataclass(frozen=True)
class Source:
    """An input: its kind, its name, and when it was acquired, where that is known."""

    kind: str
    name: str
    acquired: datetime | None = None


@dataclass(frozen=True)
class Lineage:
    """What a product was made from and how. name: of the area. sources: what serves it by its place. options: of the
    configuration. accuracy: figures that hold for all of it, by name, units in the names. received: when the newest
    image file was written, which stands in where no time of acquisition is known. registered: names of the lidar files
    that all of the area was registered to."""

    name: str
    sources: tuple[Source, ...]
    options: dict[str, Any]
    accuracy: dict[str, float | None]
    pairs: tuple[tuple[str, str], ...]
    received: datetime
    registered: tuple[str, ...] = ()

    @property
    def times(self) -> list[datetime]:
        """When images were acquired, in order; without a zone they are UTC."""
        known = (s.acquired for s in self.sources if s.kind == "image" and s.acquired is not None)
        return sorted(t if t.tzinfo else t.replace(tzinfo=UTC) for t in known)

    @property
    def start(self) -> datetime:
        return self.times[0] if self.times else self.received

    @property
    def end(self) -> datetime:
        return self.times[-1] if self.times else self.received

    def statement(self) -> str:
        """One sentence."""
        images = sum(s.kind == "image" for s in self.sources)
        tied = f", tied to {len(self.registered)} lidar files" if self.registered else ""
        return f"terrain3d {__version__}: stereo of {images} images in {len(self.pairs)} pairs{tied}"


def write_metadata(
    out: Path, code: str, grid: Grid, lineage: Lineage, cells: dict[str, Any], note: str = ""
) -> list[tuple[Path, str]]:
    """Write ``CODE_lineage.json`` and ``CODE_metadata.xml``; the paths with their titles. Raises OutputError.

    grid: with the vertical reference of the heights. cells: figures of the cells, as in ``quality.json``. note: what is
    not as it should be.
    """
    content: dict[str, Any] = {
        "code": code,
        "software": f"terrain3d {__version__}",
        "libraries": _libraries(),
        "horizontal": grid.reference.horizontal,
        "vertical": grid.reference.vertical.name,
        "sources": [_plain_source(asdict(s)) for s in lineage.sources],
        "registered_to": list(lineage.registered),
        "pairs": [list(p) for p in lineage.pairs],
        "options": lineage.options,
        "accuracy": lineage.accuracy,
        "cells": cells,
        "note": note,
    }
    sidecar, xml = out / f"{code}_lineage.json", out / f"{code}_metadata.xml"
    write_json(sidecar, content)
    write_bytes(xml, iso_metadata(code, grid, lineage, cells, note))
    return [(sidecar, "Sources, options and accuracy"), (xml, "ISO 19115 metadata")]


def _libraries() -> dict[str, str]:
    """Versions of what the numbers rest on besides the program."""
    return {
        "numpy": np.__version__, "scipy": scipy.__version__, "numba": numba.__version__, "opencv": cv2.__version__,
        "gdal": rasterio.__gdal_version__, "proj": pyproj.proj_version_str,
    }  # fmt: skip


def _plain_source(source: dict[str, Any]) -> dict[str, Any]:
    time = source["acquired"]
    return source | {"acquired": None if time is None else time.isoformat()}


def iso_metadata(code: str, grid: Grid, lineage: Lineage, cells: dict[str, Any], note: str = "") -> bytes:
    """ISO 19115 metadata of a product: identification, extent, reference systems, quality and lineage."""
    for prefix, uri in (("gmd", GMD), ("gco", GCO), ("gml", GML), ("xlink", XLINK)):
        ElementTree.register_namespace(prefix, uri)
    root = Element(_gmd("MD_Metadata"))
    _text(root, "fileIdentifier", f"{lineage.name}/{code}")
    _code(SubElement(root, _gmd("language")), "LanguageCode", "eng")
    _code(SubElement(root, _gmd("characterSet")), "MD_CharacterSetCode", "utf8")
    _code(SubElement(root, _gmd("hierarchyLevel")), "MD_ScopeCode", "dataset")
    party = _inside(root, "contact", "CI_ResponsibleParty")
    _text(party, "organisationName", lineage.name)
    _code(SubElement(party, _gmd("role")), "CI_RoleCode", "processor")
    _date(SubElement(root, _gmd("dateStamp")), lineage.end)
    _text(root, "metadataStandardName", "ISO 19115:2003")
    _text(root, "metadataStandardVersion", "ISO/TS 19139:2007")
    _spatial(root, grid)
    for system in (grid.reference.horizontal, grid.reference.vertical.name):
        identifier = _inside(_inside(root, "referenceSystemInfo", "MD_ReferenceSystem"), "referenceSystemIdentifier",
                             "RS_Identifier")  # fmt: skip
        _text(identifier, "code", system)
    _identification(root, code, grid, lineage, note)
    _quality(root, lineage, cells)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _spatial(root: Element, grid: Grid) -> None:
    info = _inside(root, "spatialRepresentationInfo", "MD_GridSpatialRepresentation")
    _number(info, "numberOfDimensions", 2, "Integer")
    for name, size in (("row", grid.height), ("column", grid.width)):
        dimension = _inside(info, "axisDimensionProperties", "MD_Dimension")
        _code(SubElement(dimension, _gmd("dimensionName")), "MD_DimensionNameTypeCode", name)
        _number(dimension, "dimensionSize", size, "Integer")
        resolution = SubElement(SubElement(dimension, _gmd("resolution")), f"{{{GCO}}}Measure", uom="m")
        resolution.text = f"{grid.resolution:g}"
    _code(SubElement(info, _gmd("cellGeometry")), "MD_CellGeometryCode", "area")
    flag = SubElement(SubElement(info, _gmd("transformationParameterAvailability")), f"{{{GCO}}}Boolean")
    flag.text = "true"


def _identification(root: Element, code: str, grid: Grid, lineage: Lineage, note: str) -> None:
    data = _inside(root, "identificationInfo", "MD_DataIdentification")
    citation = _inside(data, "citation", "CI_Citation")
    _text(citation, "title", f"{lineage.name}: surface and terrain model, tile {code}")
    when = _inside(citation, "date", "CI_Date")
    _date(SubElement(when, _gmd("date")), lineage.end)
    _code(SubElement(when, _gmd("dateType")), "CI_DateTypeCode", "creation")
    summary = (
        "Digital surface model, terrain model, their 1-sigma, height above ground, true orthophoto and point cloud"
        f" from satellite stereo, cells of {grid.resolution:g} m. {note}"
    )
    _text(data, "abstract", summary.strip())
    _code(SubElement(data, _gmd("spatialRepresentationType")), "MD_SpatialRepresentationTypeCode", "grid")
    resolution = _inside(data, "spatialResolution", "MD_Resolution")
    SubElement(SubElement(resolution, _gmd("distance")), f"{{{GCO}}}Distance", uom="m").text = f"{grid.resolution:g}"
    _code(SubElement(data, _gmd("language")), "LanguageCode", "eng")
    SubElement(SubElement(data, _gmd("topicCategory")), _gmd("MD_TopicCategoryCode")).text = "elevation"
    west, south, east, north = bounds_lonlat(grid)
    extent = _inside(data, "extent", "EX_Extent")
    box = _inside(extent, "geographicElement", "EX_GeographicBoundingBox")
    for name, value in (
        ("westBoundLongitude", west), ("eastBoundLongitude", east),
        ("southBoundLatitude", south), ("northBoundLatitude", north),
    ):  # fmt: skip
        _number(box, name, value, "Decimal")


def _quality(root: Element, lineage: Lineage, cells: dict[str, Any]) -> None:
    quality = _inside(root, "dataQualityInfo", "DQ_DataQuality")
    scope = _inside(quality, "scope", "DQ_Scope")
    _code(SubElement(scope, _gmd("level")), "MD_ScopeCode", "dataset")
    for name, value in (lineage.accuracy | {"median_sigma_m": cells.get("median_sigma_m")}).items():
        unit = name.rpartition("_")[2]
        if value is None or unit not in ("m", "px"):
            continue  # how many there are is no accuracy
        kind = "DQ_RelativeInternalPositionalAccuracy" if unit == "px" else "DQ_AbsoluteExternalPositionalAccuracy"
        report = _inside(quality, "report", kind)
        _text(report, "nameOfMeasure", name)
        result = _inside(report, "result", "DQ_QuantitativeResult")
        link = {f"{{{XLINK}}}href": METRE} if unit == "m" else {f"{{{GCO}}}nilReason": "inapplicable"}
        SubElement(result, _gmd("valueUnit"), link)
        SubElement(SubElement(result, _gmd("value")), f"{{{GCO}}}Record").text = f"{value:.4g}"
    line = _inside(quality, "lineage", "LI_Lineage")
    _text(line, "statement", lineage.statement())
    step = _inside(line, "processStep", "LI_ProcessStep")
    options = ", ".join(f"{k} {v}" for k, v in lineage.options.items())
    _text(step, "description", f"Adjustment, matching, registration to lidar, surfaces; options: {options}")
    for source in lineage.sources:
        found = _inside(line, "source", "LI_Source")
        when = f", acquired {source.acquired.isoformat()}" if source.acquired else ""
        _text(found, "description", f"{source.kind}: {source.name}{when}")
    for name in lineage.registered:
        _text(_inside(line, "source", "LI_Source"), "description", f"registration to lidar: {name}")


def _gmd(name: str) -> str:
    return f"{{{GMD}}}{name}"


def _inside(parent: Element, property_: str, kind: str) -> Element:
    return SubElement(SubElement(parent, _gmd(property_)), _gmd(kind))


def _text(parent: Element, property_: str, text: str) -> None:
    SubElement(SubElement(parent, _gmd(property_)), f"{{{GCO}}}CharacterString").text = text


def _number(parent: Element, property_: str, value: float, kind: str) -> None:
    SubElement(SubElement(parent, _gmd(property_)), f"{{{GCO}}}{kind}").text = f"{value:.10g}"


def _code(parent: Element, kind: str, value: str) -> None:
    SubElement(parent, _gmd(kind), codeList=f"{CODES}#{kind}", codeListValue=value).text = value


def _date(parent: Element, time: datetime) -> None:
    SubElement(parent, f"{{{GCO}}}Date").text = time.date().isoformat()
