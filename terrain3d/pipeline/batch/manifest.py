"""The manifest of a batch: what was done, what it gave, what it took, and what went wrong. SQLite, one writer."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from terrain3d.errors import InputFileError, OutputError
from terrain3d.io.atomic import output_error
from terrain3d.io.objects import Piece

SCHEMA = """
CREATE TABLE IF NOT EXISTS work (
    key TEXT PRIMARY KEY, stage TEXT NOT NULL, place TEXT NOT NULL, state TEXT NOT NULL,
    result TEXT, pieces TEXT NOT NULL, arrays TEXT NOT NULL, files TEXT NOT NULL, error TEXT,
    wall_s REAL, cpu_s REAL, memory_mb REAL, attempts INTEGER, bounds TEXT, finished TEXT);
CREATE TABLE IF NOT EXISTS tile (
    code TEXT PRIMARY KEY, state TEXT NOT NULL, key TEXT, note TEXT, bounds TEXT);
CREATE TABLE IF NOT EXISTS problem (what TEXT NOT NULL, place TEXT NOT NULL, message TEXT NOT NULL, bounds TEXT,
    PRIMARY KEY (what, place));
CREATE TABLE IF NOT EXISTS progress (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
DONE, FAILED = "done", "failed"
HELD = "held "  # before the names of what is held from batch to batch


@dataclass(frozen=True)
class Record:
    """Finished or failed work. result: object that holds its result, None for no result. pieces: of rasters that it
    wrote, arrays: objects of arrays. files: products that it wrote, with their SHA-256."""

    key: str
    stage: str
    place: str
    state: str
    result: str | None = None
    pieces: tuple[tuple[str, Piece], ...] = ()
    arrays: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    error: str | None = None
    wall_s: float = 0.0
    cpu_s: float = 0.0
    memory_mb: float = 0.0
    attempts: int = 1
    bounds: tuple[float, float, float, float] | None = None

    @property
    def objects(self) -> set[str]:
        """Objects that it needs."""
        made = {p.name for _, p in self.pieces if p.even is None} | set(self.arrays)
        return made | ({self.result} if self.result else set())


@dataclass(frozen=True)
class TileState:
    """What became of a tile: 'done', 'incomplete' (something failed in it), 'failed', 'empty' (no data), or
    'waiting'."""

    code: str
    state: str
    bounds: tuple[float, float, float, float]
    note: str = ""
    key: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something that failed and was left out: an image, a lidar file, a part of the area with its bounds."""

    what: str
    place: str
    message: str
    bounds: tuple[float, float, float, float] | None = None

    @property
    def line(self) -> str:
        """For a person; the place once, where the message begins with it."""
        return f"{self.what} {self.message if self.message.startswith(self.place) else f'{self.place}: {self.message}'}"


class Manifest:
    """Open with ``open_manifest``. Raises OutputError where the disk is full, InputFileError for a damaged file."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path, self._db = path, connection

    def record(self, key: str) -> Record | None:
        """What is known of a key."""
        row = self._run("SELECT * FROM work WHERE key = ?", key).fetchone()
        return None if row is None else self._record(row)

    def put(self, r: Record) -> None:
        """Keep what was done, at once."""
        pieces = json.dumps([[layer, *p.window, p.name] for layer, p in r.pieces])
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._run(
            "INSERT OR REPLACE INTO work VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            r.key, r.stage, r.place, r.state, r.result, pieces, json.dumps(r.arrays), json.dumps(r.files), r.error,
            r.wall_s, r.cpu_s, r.memory_mb, r.attempts, json.dumps(r.bounds), now,
        )  # fmt: skip

    def records(self) -> Iterator[Record]:
        """All work, in the order in which it was finished."""
        for row in self._run("SELECT * FROM work ORDER BY finished, rowid"):
            yield self._record(row)

    def keep_only(self, keys: set[str]) -> None:
        """Forget work that nothing needs any more."""
        known = {k for (k,) in self._run("SELECT key FROM work")}
        with self._transaction():
            for key in known - keys:
                self._db.execute("DELETE FROM work WHERE key = ?", (key,))

    def set_tiles(self, tiles: list[TileState]) -> None:
        """State of all tiles."""
        with self._transaction():
            self._db.execute("DELETE FROM tile")
            self._db.executemany(
                "INSERT INTO tile (code, state, note, key, bounds) VALUES (?,?,?,?,?)",
                [(t.code, t.state, t.note, t.key, json.dumps(t.bounds)) for t in tiles],
            )

    def tiles(self) -> list[TileState]:
        """State of all tiles, by code."""
        rows = self._run("SELECT code, state, bounds, note, key FROM tile ORDER BY code")
        return [TileState(code, state, tuple(json.loads(b)), note or "", key) for code, state, b, note, key in rows]

    def add_problem(self, p: Problem) -> None:
        bounds = None if p.bounds is None else json.dumps(p.bounds)
        self._run("INSERT OR REPLACE INTO problem VALUES (?,?,?,?)", p.what, p.place, p.message, bounds)

    def problems(self) -> list[Problem]:
        rows = self._run("SELECT what, place, message, bounds FROM problem ORDER BY rowid").fetchall()
        return [Problem(w, p, m, None if b is None else tuple(json.loads(b))) for w, p, m, b in rows]

    def forget_problems(self, lasting: tuple[str, ...]) -> None:
        """Those of other kinds are found again if they still hold."""
        for p in self.problems():
            if p.what not in lasting:
                self._run("DELETE FROM problem WHERE what = ? AND place = ?", p.what, p.place)

    def clear_problems(self) -> None:
        """Everything is to be tried again."""
        self._run("DELETE FROM problem")
        self._run("DELETE FROM work WHERE state = ?", FAILED)

    def let_go(self) -> None:
        """Nothing is held any more."""
        self._run("DELETE FROM progress WHERE name LIKE ?", f"{HELD}%")

    def note(self, name: str, value: Any) -> None:
        """Keep a value by its name."""
        self._run("INSERT OR REPLACE INTO progress VALUES (?,?)", name, json.dumps(value))

    def noted(self, name: str) -> Any:
        row = self._run("SELECT value FROM progress WHERE name = ?", name).fetchone()
        return None if row is None else json.loads(row[0])

    def _run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise _error(self._path, error) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise _error(self._path, error) from error

    @staticmethod
    def _record(row: tuple[Any, ...]) -> Record:
        pieces = tuple((p[0], Piece((p[1], p[2], p[3], p[4]), p[5])) for p in json.loads(row[5]))
        files = tuple((f[0], f[1]) for f in json.loads(row[7]))
        arrays = tuple(json.loads(row[6]))
        error, wall, cpu, memory, attempts = row[8:13]
        bounds = json.loads(row[13])
        place = None if bounds is None else tuple(bounds)
        key, stage, name, state, result = row[:5]
        return Record(key, stage, name, state, result, pieces, arrays, files, error, wall, cpu, memory, attempts, place)


@contextmanager
def open_manifest(path: Path, *, read_only: bool = False) -> Iterator[Manifest]:
    """The manifest at a path, made if it is missing. Raises OutputError, InputFileError (not a manifest)."""
    try:
        if read_only:
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        else:
            connection = sqlite3.connect(path, isolation_level=None)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(SCHEMA)
    except sqlite3.Error as error:
        raise _error(path, error) from error
    try:
        yield Manifest(path, connection)
    finally:
        connection.close()


def _error(path: Path, error: sqlite3.Error) -> InputFileError | OutputError:
    if isinstance(error, sqlite3.OperationalError):
        return output_error(path, OSError(str(error)))
    return InputFileError(f"is damaged ({error})", where=path, fix="delete it; finished work is then done again")
