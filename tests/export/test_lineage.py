"""Metadata of a product against the sequences of ISO/TS 19139, schema 20060504 (gmd.xsd and what it includes)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from terrain3d.crs import Reference
from terrain3d.export.lineage import GCO, GMD, Lineage, Source, iso_metadata
from terrain3d.raster import Grid

# Of each type: its properties in the order of its sequence, those of its base type first; ! those that must be there.
SEQUENCES = {
    "MD_Metadata": "fileIdentifier language characterSet parentIdentifier hierarchyLevel hierarchyLevelName contact! "
    "dateStamp! metadataStandardName metadataStandardVersion dataSetURI locale spatialRepresentationInfo "
    "referenceSystemInfo metadataExtensionInfo identificationInfo! contentInfo distributionInfo dataQualityInfo "
    "portrayalCatalogueInfo metadataConstraints applicationSchemaInfo metadataMaintenance series describes "
    "propertyType featureType featureAttribute",
    "CI_ResponsibleParty": "individualName organisationName positionName contactInfo role!",
    "MD_GridSpatialRepresentation": "numberOfDimensions! axisDimensionProperties cellGeometry! "
    "transformationParameterAvailability!",
    "MD_Dimension": "dimensionName! dimensionSize! resolution",
    "MD_ReferenceSystem": "referenceSystemIdentifier",
    "RS_Identifier": "authority code! codeSpace version",
    "MD_DataIdentification": "citation! abstract! purpose credit status pointOfContact resourceMaintenance "
    "graphicOverview resourceFormat descriptiveKeywords resourceSpecificUsage resourceConstraints aggregationInfo "
    "spatialRepresentationType spatialResolution language! characterSet topicCategory environmentDescription extent "
    "supplementalInformation",
    "CI_Citation": "title! alternateTitle date! edition editionDate identifier citedResponsibleParty presentationForm "
    "series otherCitationDetails collectiveTitle ISBN ISSN",
    "CI_Date": "date! dateType!",
    "MD_Resolution": "distance!",  # a choice; equivalentScale is the other one
    "EX_Extent": "description geographicElement temporalElement verticalElement",
    "EX_GeographicBoundingBox": "extentTypeCode westBoundLongitude! eastBoundLongitude! southBoundLatitude! "
    "northBoundLatitude!",
    "DQ_DataQuality": "scope! report lineage",
    "DQ_Scope": "level! extent levelDescription",
    "DQ_QuantitativeResult": "valueType valueUnit! errorStatistic value!",
    "LI_Lineage": "statement processStep source",
    "LI_ProcessStep": "description! rationale dateTime processor source",
    "LI_Source": "description scaleDenominator sourceReferenceSystem sourceCitation sourceExtent sourceStep",
}
REPORT = (
    "nameOfMeasure measureIdentification measureDescription evaluationMethodType evaluationMethodDescription "
    "evaluationProcedure dateTime result!"
)
SEQUENCES |= {f"DQ_{kind}PositionalAccuracy": REPORT for kind in ("RelativeInternal", "AbsoluteExternal")}
CODES = {  # values of the lists that are used
    "MD_ScopeCode": {"dataset"}, "CI_RoleCode": {"processor"}, "MD_CharacterSetCode": {"utf8"},
    "MD_DimensionNameTypeCode": {"row", "column"}, "MD_CellGeometryCode": {"area"}, "CI_DateTypeCode": {"creation"},
    "MD_SpatialRepresentationTypeCode": {"grid"}, "LanguageCode": {"eng"},
}  # fmt: skip
REPEATED = {"axisDimensionProperties", "referenceSystemInfo", "report", "source", "hierarchyLevel", "contact"}

GRID = Grid(Reference("EPSG:32654"), 300_000.0, 4_000_000.0, 0.5, 200, 300)
LINEAGE = Lineage(
    "valley", (Source("image", "a.tif", datetime(2024, 5, 1, tzinfo=UTC)), Source("lidar", "b.h5")),
    {"crs": "auto", "resolution": 0.5},
    {"adjustment_rms_px": 0.07, "held_out_rmse_m": 0.21, "sigma_up_m": None, "held_out_returns": 80},
    (("a", "c"),), datetime(2024, 6, 1, tzinfo=UTC), ("b.h5",),
)  # fmt: skip


def faults(element: Element) -> list[str]:
    """What of an object and all in it does not fit the sequences."""
    kind = element.tag.removeprefix(f"{{{GMD}}}")
    order = [name.rstrip("!") for name in SEQUENCES[kind].split()]
    names = [child.tag.removeprefix(f"{{{GMD}}}") for child in element]
    out = [f"{kind}: no {n[:-1]}" for n in SEQUENCES[kind].split() if n.endswith("!") and n[:-1] not in names]
    out += [f"{kind}: what is {n}" for n in names if n not in order]
    known = [order.index(n) for n in names if n in order]
    out += [f"{kind}: order of {names}"] if known != sorted(known) else []
    out += [f"{kind}: {n} twice" for n in {n for n in names if names.count(n) > 1} - REPEATED]
    for child in element:
        for value in child:
            name = value.tag.removeprefix(f"{{{GMD}}}")
            if name in SEQUENCES:
                out += faults(value)
            elif "codeList" in value.attrib:
                out += [] if value.get("codeListValue") in CODES[name] else [f"{name}: {value.get('codeListValue')}"]
            elif name != "MD_TopicCategoryCode" and not value.tag.startswith(f"{{{GCO}}}"):
                out.append(f"{kind}: what is {value.tag}")
    return out


def test_iso_metadata__fits_the_sequences_of_the_schema() -> None:
    root = ElementTree.fromstring(iso_metadata("T1", GRID, LINEAGE, {"median_sigma_m": 0.3}, "a note"))
    assert faults(root) == []
    texts = [e.text for e in root.iter(f"{{{GCO}}}CharacterString")]
    assert {"valley/T1", "image: a.tif, acquired 2024-05-01T00:00:00+00:00", "registration to lidar: b.h5"} <= {*texts}
    assert [e.text for e in root.iter(f"{{{GCO}}}Record")] == ["0.07", "0.21", "0.3"]  # numbers of returns are none
    west, east, south, north = (
        float(root.find(f".//{{{GMD}}}{side}")[0].text or "")  # type: ignore[index]
        for side in ("westBoundLongitude", "eastBoundLongitude", "southBoundLatitude", "northBoundLatitude")
    )
    assert 138 < west < east < 139 and 36 < south < north < 37


def test_iso_metadata__nothing_known_of_accuracy_or_lidar() -> None:
    bare = replace(LINEAGE, accuracy={}, registered=(), sources=LINEAGE.sources[:1])
    assert faults(ElementTree.fromstring(iso_metadata("T1", GRID, bare, {}))) == []


@pytest.mark.parametrize("swap", ["abstract", "contact", "result"])
def test_faults__an_element_out_of_place_is_found(swap: str) -> None:
    root = ElementTree.fromstring(iso_metadata("T1", GRID, LINEAGE, {}))
    parent = next(e for e in root.iter() if any(c.tag == f"{{{GMD}}}{swap}" for c in e))
    child = next(c for c in parent if c.tag == f"{{{GMD}}}{swap}")
    parent.remove(child)
    assert faults(root)
    parent.insert(len(parent) if swap != "result" else 0, child)
    assert any("order" in f for f in faults(root))
