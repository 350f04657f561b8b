"""RPC from XML: DIMAP of Pleiades and SPOT (V1, V2) and Pleiades Neo (V3), and GDAL's .aux.xml.

Source: Pleiades Imagery User Guide, section on the RPC file; the same for Pleiades Neo. The model from ground to
image is Inverse_Model in V1 and V2, GroundtoImage_Values in V3. Up to V2 the centre of the first pixel is (1, 1),
in V3 (0, 0).
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from terrain3d.camera.read_text import NORMALIZATION, POLYNOMIALS, Fields, assemble, parse_metadata
from terrain3d.camera.rpc import RpcModel
from terrain3d.errors import InputFileError


def parse_xml(data: bytes, where: Path) -> Element:
    """Root element, namespaces taken off. Raises InputFileError if malformed, or if there is a document type
    declaration: metadata needs none, and entities declared there can expand without bound or name other files."""
    builder = TreeBuilder()
    parser = expat.ParserCreate(namespace_separator=" ")

    def refuse(*_: object) -> None:
        raise InputFileError("XML with a DOCTYPE is not accepted", where=where, fix="delete the DOCTYPE declaration")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda tag, attributes: builder.start(tag.rpartition(" ")[2], attributes)
    parser.EndElementHandler = lambda tag: builder.end(tag.rpartition(" ")[2])
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        fix = "the file may be truncated; fetch it again"
        raise InputFileError(f"XML cannot be read: {error}", where=where, fix=fix) from None
    return builder.close()


def parse_dimap(root: Element, where: Path) -> RpcModel:
    """Model of a DIMAP RPC document. Raises InputFileError or CameraError."""
    model, first_pixel = root.find(".//Inverse_Model"), 1.0
    if model is None:
        model, first_pixel = root.find(".//GroundtoImage_Values"), 0.0
    validity = root.find(".//RFM_Validity")
    if model is None or validity is None:
        fix = "give the file whose name starts with RPC_"
        raise InputFileError("XML holds no RPC (Inverse_Model and RFM_Validity)", where=where, fix=fix)
    coefficients = [f"{name}_{i}" for name in POLYNOMIALS for i in range(1, 21)]
    fields = {**_numbers(model, coefficients, where), **_numbers(validity, NORMALIZATION, where)}
    for name in ("LINE_OFF", "SAMP_OFF"):
        fields[name] = [value - first_pixel for value in fields.get(name, [])]
    return assemble(fields, where)


def parse_aux(root: Element, where: Path) -> RpcModel | None:
    """Model in the RPC metadata domain of GDAL's .aux.xml; None if it has none."""
    items = root.findall("./Metadata[@domain='RPC']/MDI")
    return parse_metadata({i.get("key", ""): i.text or "" for i in items}, where) if items else None


def tile_origin(root: Element, row: int, column: int) -> tuple[float, float] | None:
    """First (line, sample), from 0, of tile (row, column), from 1, after the DIM_ file of the whole image; None if
    the document gives no regular tiling without overlap."""
    size = root.find(".//Regular_Tiling/NTILES_SIZE")
    overlap = [root.findtext(f".//Regular_Tiling/OVERLAP_{axis}") or "0" for axis in ("ROW", "COL")]
    try:
        if size is None or any(float(o) for o in overlap):
            return None
        return (row - 1) * float(size.get("nrows", "")), (column - 1) * float(size.get("ncols", ""))
    except ValueError:
        return None


def _numbers(parent: Element, names: list[str] | tuple[str, ...], where: Path) -> Fields:
    fields: Fields = {}
    for name in names:
        text = parent.findtext(name)
        if text is None:
            continue
        try:
            fields[name] = [float(text)]
        except ValueError:
            raise InputFileError(
                f"{name} is not a number: {text[:40]!r}", where=where, fix="repair the RPC file"
            ) from None
    return fields
