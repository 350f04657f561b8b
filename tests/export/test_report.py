from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from terrain3d.errors import OutputError
from terrain3d.export.plots import Series, histogram
from terrain3d.export.report import Figure, ReportData, Section, Table, Text, render_report, write_report

VOID = {"meta", "img", "br", "path", "rect"}


class Checker(HTMLParser):
    """Collects tags and text; fails on tags that do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def report() -> ReportData:
    picture = np.zeros((4, 6, 3), np.uint8)
    plot = histogram([Series("before", np.arange(9.0))], x_label="m")
    return ReportData(
        "town <b>&",
        "lead",
        [
            Section("Figures", [Text("a < b"), Table(["what", "value"], [["NMAD", "0.25 m"], ["<i>", "none"]], "cap")]),
            Section("Pictures", [Figure(picture, "DSM", [("filled", (1, 2, 3))]), Figure(plot, "plot"), Text("end")]),
            Section("Empty", []),
        ],
    )


def test_render_report__well_formed_escaped_self_contained() -> None:
    text = render_report(report())
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    names = [t for t, _ in checker.tags]
    assert "script" not in names and "link" not in names and "b" not in names and "i" in names
    for _, attributes in checker.tags:
        assert not str(attributes.get("src", "data:")).startswith("http") and "href" not in attributes
    assert next(a["src"] for t, a in checker.tags if t == "img").startswith("data:image/png;base64,iVBOR")
    assert "town <b>&" in checker.texts and "a < b" in checker.texts and "<i>" in checker.texts
    assert names.count("h2") == 2 and names.count("figure") == 2
    assert text.count('class="row"') == 1 and '<td class="n">0.25 m</td>' in text and "<td>NMAD</td>" in text


def test_write_report__file_and_unwritable_place(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", report())
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_report(tmp_path / "file" / "r.html", report())
