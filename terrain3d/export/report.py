"""One self-contained HTML page of text, tables and figures: no script, nothing that is loaded from elsewhere."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from terrain3d.export.figures import Colour, Picture, png
from terrain3d.io.atomic import write_text

CSS = """
body{font:15px/1.5 system-ui,sans-serif;color:#24292f;max-width:1120px;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{border-bottom:1px solid #d0d7de;padding-bottom:.2rem;margin-top:2.2rem}
.lead{color:#57606a;margin-top:.2rem}.row{display:flex;flex-wrap:wrap;gap:1.2rem;align-items:flex-start}
figure{margin:0 0 1rem}figure img{max-width:100%;height:auto;border:1px solid #d0d7de}
figcaption,caption{color:#57606a;font-size:13px;text-align:left}caption{padding-bottom:.3rem}
table{border-collapse:collapse;margin:0 0 1rem}
th,td{padding:.2rem .7rem;border-bottom:1px solid #e5e8eb;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}th{background:#f6f8fa}
.key{display:inline-block;margin-right:1.2rem}.key i{display:inline-block;width:1em;height:1em;border:1px solid #999;
margin-right:.4em;vertical-align:-.12em}
"""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; cells that read as numbers are set to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture (uint8 RGB array) or a plot (SVG text of ``export.plots``), with a caption and an optional legend."""

    image: Picture | str
    caption: str
    legend: Sequence[tuple[str, Colour]] = ()


Block = Text | Table | Figure


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it. Neighbouring figures stand side by side."""

    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class ReportData:
    """Title, one line under it, and the sections. Sections without blocks are left out."""

    title: str
    lead: str = ""
    sections: Sequence[Section] = field(default_factory=tuple)


def write_report(path: str | Path, report: ReportData) -> None:
    """Write the report as one HTML file, atomically. Raises OutputError."""
    write_text(path, render_report(report))


def render_report(report: ReportData) -> str:
    """HTML text of the report; every text of it is escaped."""
    body = [f"<h1>{escape(report.title)}</h1>"]
    if report.lead:
        body.append(f'<p class="lead">{escape(report.lead)}</p>')
    for section in report.sections:
        if section.blocks:
            body.append(f"<h2>{escape(section.heading)}</h2>")
            body.extend(_blocks(section.blocks))
    head = f'<meta charset="utf-8"><title>{escape(report.title)}</title><style>{CSS}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _blocks(blocks: Sequence[Block]) -> list[str]:
    out: list[str] = []
    in_row = False
    for block in blocks:
        if isinstance(block, Figure) != in_row:
            out.append("</div>" if in_row else '<div class="row">')
            in_row = not in_row
        out.append(_block(block))
    return [*out, "</div>"] if in_row else out


def _block(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Table):
        head = "".join(f"<th>{escape(h)}</th>" for h in block.header)
        rows = "".join(f"<tr>{''.join(_cell(c) for c in row)}</tr>" for row in block.rows)
        caption = f"<caption>{escape(block.caption)}</caption>" if block.caption else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    if isinstance(block.image, str):
        image = block.image
    else:
        data = b64encode(png(block.image)).decode("ascii")
        image = f'<img alt="{escape(block.caption)}" src="data:image/png;base64,{data}">'
    keys = "".join(
        f'<span class="key"><i style="background:rgb({r},{g},{b})"></i>{escape(name)}</span>'
        for name, (r, g, b) in block.legend
    )
    return f"<figure>{image}<figcaption>{escape(block.caption)} {keys}</figcaption></figure>"


def _cell(text: str) -> str:
    first = text.strip().split(" ")[0].rstrip("%")
    try:
        float(first)
    except ValueError:
        return f"<td>{escape(text)}</td>"
    return f'<td class="n">{escape(text)}</td>'
