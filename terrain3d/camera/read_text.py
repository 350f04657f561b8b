"""RPC from keyword text: Maxar .RPB, _RPC.TXT, OSSIM .geom, and the RPC metadata domain of GDAL.

All four hold the same numbers under names that differ little, so each parser returns them under the names of GDAL's
RPC metadata domain (RFC 22), and ``assemble`` makes the model. Files count pixels from the centre of the first
pixel, (0, 0); OSSIM does too (it takes the 1 of DIMAP off when it imports one).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from terrain3d.camera.rpc import RpcModel
from terrain3d.errors import CameraError, InputFileError

Fields = dict[str, list[float]]
POLYNOMIALS = ("LINE_NUM_COEFF", "LINE_DEN_COEFF", "SAMP_NUM_COEFF", "SAMP_DEN_COEFF")
_AXES = ("LINE", "SAMP", "LONG", "LAT", "HEIGHT")
NORMALIZATION = tuple(f"{axis}_{what}" for axis in _AXES for what in ("OFF", "SCALE"))
_RPB_NAMES = {  # lineOffset, lineScale, ..., lineNumCoef, ...
    **{f"{a}{w}".lower(): f"{a}_{g}" for a in _AXES for w, g in (("Offset", "OFF"), ("Scale", "SCALE"))},
    **{name.replace("_", "").lower()[:-1]: name for name in POLYNOMIALS},
}
_SEPARATOR = re.compile(r"[:=]")


def assemble(fields: Fields, where: Path) -> RpcModel:
    """Model from numbers under GDAL's names; polynomials as one list of 20, or as _1 to _20, or as _00 to _19.

    Raises InputFileError if a number is missing, CameraError if one is not finite or a scale is zero.
    """
    fields = dict(fields)
    for name in POLYNOMIALS:
        if name not in fields:
            suffixes = [f"{i:02d}" for i in range(20)] if f"{name}_00" in fields else [str(i) for i in range(1, 21)]
            keys = [f"{name}_{suffix}" for suffix in suffixes]
            fields[name] = [value for k in keys for value in fields.get(k, [])[:1]]
    short = [n for n in POLYNOMIALS if len(fields[n]) != 20] + [n for n in NORMALIZATION if not fields.get(n)]
    if short:
        raise InputFileError(
            f"RPC is incomplete: {', '.join(short)}", where=where, fix="the file may be truncated; fetch it again"
        )
    line_num, line_den, samp_num, samp_den = (tuple(fields[n]) for n in POLYNOMIALS)
    norm = [fields[n][0] for n in NORMALIZATION]
    try:
        return RpcModel(line_num, line_den, samp_num, samp_den, *norm)
    except CameraError as error:
        raise CameraError(error.what, where=where, fix="give another RPC file for this image") from None


def parse_text(text: str, where: Path) -> RpcModel:
    """Model from the text of an .RPB, _RPC.TXT or .geom file, told apart by their keywords. Errors as ``assemble``."""
    lowered = text.lower()
    if "linenumcoef" in lowered:
        return assemble(_fields(_rpb_statements(text), where), where)
    if "line_num_coeff" not in lowered:
        raise InputFileError(
            "holds no RPC that can be read", where=where, fix="give an .RPB, _RPC.TXT, .geom or DIMAP RPC file"
        )
    pairs = list(_keyword_lines(text))
    for key, value in pairs:
        if key == "POLYNOMIAL_FORMAT" and value.strip().upper() != "B":
            raise CameraError(
                f"polynomial_format {value.strip()} is not RPC00B", where=where, fix="convert the RPC to RPC00B"
            )
    return assemble(_fields(pairs, where), where)


def parse_metadata(metadata: Mapping[str, str], where: Path) -> RpcModel:
    """Model from GDAL's RPC metadata domain. Errors as ``assemble``."""
    return assemble(_fields(((k.upper(), v) for k, v in metadata.items()), where), where)


def _keyword_lines(text: str) -> Iterator[tuple[str, str]]:
    """'KEY: value unit' lines, keys in capitals."""
    for line in text.splitlines():
        parts = _SEPARATOR.split(line, maxsplit=1)
        if len(parts) == 2:
            yield parts[0].strip().upper(), parts[1]


def _rpb_statements(text: str) -> Iterator[tuple[str, str]]:
    """'key = value;' and 'key = (a, b, ...);' statements, which may run over lines, under GDAL's names."""
    key, values = "", list[str]()
    for line in text.splitlines():
        if key:  # inside a list
            values.append(line)
        else:
            name, _, value = line.partition("=")
            key, values = _RPB_NAMES.get(name.strip().lower(), ""), [value]
        if key and ("(" not in values[0] or ")" in line):
            yield key, " ".join(values)
            key = ""


def _fields(pairs: Iterable[tuple[str, str]], where: Path) -> Fields:
    """The RPC's numbers; a unit behind them ends the list. Raises InputFileError for a value that is no number."""
    fields: Fields = {}
    for key, value in pairs:
        if not key.startswith(POLYNOMIALS) and key not in NORMALIZATION:
            continue
        numbers = []
        for word in value.translate({ord(c): " " for c in "(),;"}).split():
            try:
                numbers.append(float(word))
            except ValueError:
                break
        if not numbers:
            raise InputFileError(
                f"{key} is not a number: {value.strip()[:40]!r}", where=where, fix="repair the RPC file"
            )
        fields[key] = numbers
    return fields
