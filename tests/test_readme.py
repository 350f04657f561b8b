"""What the documents promise exists: commands, options, scene files, keys, mask codes, stages, files, pins."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from terrain3d.cli import app
from terrain3d.config import OutputConfig, SceneConfig
from terrain3d.pipeline.batch.area import AreaConfig
from terrain3d.surface.mask import MaskCode

ROOT = Path(__file__).resolve().parents[1]
PAGES = {p: p.read_text(encoding="utf-8") for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README = PAGES[ROOT / "README.md"]
TEXT = "\n".join(PAGES.values())
MOST_LINES = {"README.md": 180}  # a newcomer reads it in three minutes
MOST_LINES_OF_A_PAGE = 200
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def blocks(language: str) -> list[str]:
    """Fenced code blocks of the README and the pages in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def load(text: str) -> SceneConfig:
    """The scene or area that a YAML text says. Raises ValueError."""
    content = yaml.safe_load(text)
    return (AreaConfig if "tiles" in content else SceneConfig).model_validate(content)


def anchors(text: str) -> set[str]:
    """What links to the headings of a page may end with."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


def calls() -> list[list[str]]:
    """Words of all calls of terrain3d in the documents' shell blocks and the example scenes."""
    lines = "\n".join([*blocks("sh"), *(p.read_text(encoding="utf-8") for p in CONFIGS)]).splitlines()
    found = (re.search(r"(?:^|:\s+)(terrain3d .*)$", line) for line in lines)
    return [shlex.split(m.group(1), comments=True) for m in found if m]


def test_calls__are_found() -> None:
    assert {c[1] for c in calls()} == set(COMMANDS)


@pytest.mark.parametrize("words", calls(), ids=" ".join)
def test_calls__name_commands_and_options_that_exist(words: list[str]) -> None:
    known = {o for p in COMMANDS[words[1]].params for o in p.opts}
    assert {w for w in words[2:] if w.startswith("--")} <= known


def test_options__named_in_sentences_exist() -> None:
    known = {o for c in COMMANDS.values() for p in c.params for o in p.opts} | {"--help", "--version"}
    named = re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE))
    assert len(named) > 10
    assert set(named) <= known


def test_readme__lists_the_commands_as_the_help_does() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", README.split("## All commands")[1].split("\n## ")[0], re.MULTILINE)
    assert rows == [(name, command.help) for name, command in COMMANDS.items()]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_configs__are_valid_scenes(path: Path) -> None:
    load(path.read_text(encoding="utf-8"))


def test_configs__one_shows_every_key() -> None:
    content = yaml.safe_load((ROOT / "configs" / "scene.yaml").read_text(encoding="utf-8"))
    assert set(content) == set(SceneConfig.model_fields)
    assert set(content["output"]) == set(OutputConfig.model_fields)


def test_scene_files__are_valid() -> None:
    assert {type(load(text)) for text in blocks("yaml")} == {SceneConfig, AreaConfig}


def test_python_examples__import_what_exists() -> None:
    imports = [n for text in blocks("python") for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ImportFrom)]
    assert any(str(n.module).startswith("terrain3d.") for n in imports)
    for node in imports:
        module = importlib.import_module(str(node.module))
        assert [a.name for a in node.names if not hasattr(module, a.name)] == []


def test_inputs__name_every_key() -> None:
    text = PAGES[ROOT / "docs" / "inputs.md"]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    assert [key for key, _ in rows] == list(SceneConfig.model_fields)
    assert set(re.findall(r"`(\w+)`", dict(rows)["output"])) == set(OutputConfig.model_fields)


def test_results__mask_codes() -> None:
    text = PAGES[ROOT / "docs" / "results.md"]
    assert all(f"| {code.value} | {code.name.lower()} |" in text for code in MaskCode)


def test_results__name_every_file_of_a_run() -> None:
    rows = "".join(re.findall(r"^\| (`[^|]*`) \|", PAGES[ROOT / "docs" / "results.md"], re.MULTILINE))
    code = (ROOT / "terrain3d" / "pipeline" / "products.py").read_text(encoding="utf-8")
    written = set(re.findall(r'"([a-z_]+\.(?:gpkg|html|json|laz|tif|yaml))"', code))
    assert {"ortho_super.tif", "cloud.laz", "quality.json"} <= written
    assert written <= set(re.findall(r"`([^`]+)`", rows))


def test_method__stages_are_those_of_a_run() -> None:
    stages = re.findall(r"^\d+\. \*\*(.*?)\*\*", PAGES[ROOT / "docs" / "method.md"], re.MULTILINE)
    code = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "terrain3d" / "pipeline").glob("*.py"))
    assert stages
    assert [s for s in stages if f'.stage("{s}"' not in code] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links__lead_to_files_and_headings(path: Path) -> None:
    for target in re.findall(r"\]\(([^):]+)\)", PAGES[path]):
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(PAGES[found]), target


def test_pages__are_linked_from_the_readme_and_short() -> None:
    for path, text in PAGES.items():
        assert path.name == "README.md" or f"](docs/{path.name})" in README
        assert len(text.splitlines()) <= MOST_LINES.get(path.name, MOST_LINES_OF_A_PAGE), path.name


def test_constraints__pin_every_requirement_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.lower().split("==") for line in lines if "==" in line and not line.startswith("#"))
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        name, bound = re.sub(r"\[.*?\]", "", requirement).lower().split(">=")
        assert version(pinned[name]) >= version(bound), requirement


def version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split("."))
