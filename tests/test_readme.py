"""What the documents promise exists: commands and options, scene files, mask codes, pinned versions, pictures."""

from __future__ import annotations

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
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def blocks(language: str) -> list[str]:
    """Fenced code blocks of the README in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def calls() -> list[list[str]]:
    """Words of all calls of terrain3d in the README's shell blocks and the example scenes."""
    lines = "\n".join([*blocks("sh"), *(p.read_text(encoding="utf-8") for p in CONFIGS)]).splitlines()
    found = (re.search(r"(?:^|:\s+)(terrain3d .*)$", line) for line in lines)
    return [shlex.split(m.group(1), comments=True) for m in found if m]


def test_calls__are_found() -> None:
    assert {c[1] for c in calls()} == set(COMMANDS)


@pytest.mark.parametrize("words", calls(), ids=" ".join)
def test_calls__name_commands_and_options_that_exist(words: list[str]) -> None:
    known = {o for p in COMMANDS[words[1]].params for o in p.opts}
    assert {w for w in words[2:] if w.startswith("--")} <= known


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_configs__are_valid_scenes(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    (AreaConfig if "tiles" in content else SceneConfig).model_validate(content)


def test_configs__one_shows_every_key() -> None:
    content = yaml.safe_load((ROOT / "configs" / "scene.yaml").read_text(encoding="utf-8"))
    assert set(content) == set(SceneConfig.model_fields)
    assert set(content["output"]) == set(OutputConfig.model_fields)


def test_readme__scene_files_are_valid() -> None:
    scenes = [yaml.safe_load(text) for text in blocks("yaml")]
    assert scenes
    for scene in scenes:
        SceneConfig.model_validate(scene)


def test_readme__mask_codes() -> None:
    assert all(f"| {code.value} | {code.name.lower()} |" in README for code in MaskCode)


def test_readme__links_lead_to_files() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []


def test_constraints__pin_every_requirement_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.lower().split("==") for line in lines if "==" in line and not line.startswith("#"))
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        name, bound = re.sub(r"\[.*?\]", "", requirement).lower().split(">=")
        assert version(pinned[name]) >= version(bound), requirement


def version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split("."))
