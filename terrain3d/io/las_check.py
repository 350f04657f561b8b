"""Whether the sizes that a LAS or LAZ file states fit into it, asked before a library allocates memory for them.

Sources: ASPRS LAS 1.4 R15, tables 3 (header), 7 and 8 (variable-length records); the LASzip record and the table of
chunks after Isenburg, LASzip: lossless compression of lidar data (2013), and its specification.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from terrain3d.errors import InputFileError

HEADER = 375  # bytes of the longest header, 1.4
OLDEST, NEWEST = 227, 375
VLR_HEAD, EVLR_HEAD = 54, 60
LASZIP = (b"laszip encoded", 22204)
VARIABLE = 0xFFFFFFFF  # chunks of different sizes
MOST_CHUNK = 50_000_000  # points; writers take 50 000


def check_las(path: Path) -> None:
    """Raises InputFileError if a file is no LAS, or states more records, points or chunks than it can hold."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEADER)
            if head[:4] != b"LASF" or len(head) < OLDEST:
                raise _damaged(path, "no LAS header")
            header_size, start, records = struct.unpack_from("<HII", head, 94)
            form, length, legacy = struct.unpack_from("<BHI", head, 104)
            if not OLDEST <= header_size <= start <= size:
                raise _damaged(path, "the points begin outside the file")
            points, long_at, longs = legacy, 0, 0
            if head[25] >= 4 and len(head) >= NEWEST and header_size >= NEWEST:
                long_at, longs = struct.unpack_from("<QI", head, 235)
                points = struct.unpack_from("<Q", head, 247)[0]
            if longs and long_at + EVLR_HEAD * longs > size:
                raise _damaged(path, "records after the points lie outside the file")
            if VLR_HEAD * records > start - header_size:
                raise _damaged(path, f"{records} records do not fit before the points")
            file.seek(header_size)
            laszip = _laszip_record(file.read(start - header_size), records, path)
            if form & 0x80 == 0:
                if length == 0 or points * length > size - start:
                    raise _damaged(path, f"{points} points do not fit into it")
            elif laszip is None:
                raise _damaged(path, "compressed, but without a LASzip record")
            else:
                _check_laszip(laszip, length, path)
                file.seek(start)
                _check_chunks(file.read(8), file, size, start, path)
            if longs:
                _check_long_records(file, long_at, longs, size, path)
    except InputFileError:
        raise
    except OSError as error:
        raise InputFileError(f"cannot be read ({error.strerror})", where=path) from error
    except struct.error as error:
        raise _damaged(path, "it ends within its header") from error


def _laszip_record(data: bytes, records: int, path: Path) -> bytes | None:
    """Content of the LASzip record among the variable-length records."""
    at = 0
    for _ in range(records):
        if at + VLR_HEAD > len(data):
            raise _damaged(path, "a record begins outside the header")
        user, number, length = data[at + 2 : at + 18], *struct.unpack_from("<HH", data, at + 18)
        at += VLR_HEAD
        if at + length > len(data):
            raise _damaged(path, "a record ends outside the header")
        if (user.rstrip(b"\x00"), number) == LASZIP:
            return data[at : at + length]
        at += length
    return None


def _check_laszip(record: bytes, length: int, path: Path) -> None:
    chunk, items = struct.unpack_from("<I", record, 12)[0], struct.unpack_from("<H", record, 32)[0]
    sizes = [struct.unpack_from("<HHH", record, 34 + 6 * i)[1] for i in range(items)]
    if not items or sum(sizes) != length:
        raise _damaged(path, "the LASzip record does not fit the points")
    if chunk == 0 or (chunk > MOST_CHUNK and chunk != VARIABLE):
        raise _damaged(path, f"chunks of {chunk} points")


def _check_chunks(offset: bytes, file: BinaryIO, size: int, start: int, path: Path) -> None:
    """The table of chunks lies inside the file, and no chunk is empty."""
    at = struct.unpack("<q", offset)[0]
    if at == -1:
        file.seek(size - 8)
        at = struct.unpack("<q", file.read(8))[0]
    if not start + 8 <= at <= size - 8:
        raise _damaged(path, "its table of chunks lies outside")
    file.seek(at)
    _, chunks = struct.unpack("<II", file.read(8))
    if chunks > at - start:
        raise _damaged(path, f"{chunks} chunks do not fit into it")


def _check_long_records(file: BinaryIO, at: int, count: int, size: int, path: Path) -> None:
    for _ in range(count):
        file.seek(at)
        length = struct.unpack_from("<Q", file.read(EVLR_HEAD), 20)[0]
        at += EVLR_HEAD + length
        if at > size:
            raise _damaged(path, "a record after the points ends outside")


def _damaged(path: Path, detail: str) -> InputFileError:
    return InputFileError(f"is truncated, damaged or not LAS/LAZ ({detail})", where=path, fix="copy the file again")
