"""The house rules that a parser can check: one-way imports, who may print, small modules, empty packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import terrain3d

ROOT = Path(terrain3d.__file__).parent
# Each may import only what stands before it.
ORDER = (
    "errors", "crs", "raster", "points", "stats", "tiles", "config", "io", "camera", "image", "adjust", "stereo",
    "lidar", "register", "surface", "landform", "change", "export", "simulate", "assess", "info", "pipeline", "console",
    "commands", "cli", "__main__",
)  # fmt: skip
MAY_WRITE_TO_THE_TERMINAL = ("console", "cli")
MOST_LINES = 450
MODULES = sorted(p for p in ROOT.rglob("*.py") if p.name != "__init__.py")


def member(path: Path) -> str:
    """Package or module directly under terrain3d that a file belongs to."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all imports, those inside functions too; relative ones as '.'."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "."
            elif node.module == "terrain3d":
                yield from ((node.lineno, f"terrain3d.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, str(node.module)


def own_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and member of terrain3d that a module imports."""
    for line, name in imported(parse(path)):
        parts = name.split(".")
        if parts[0] == "terrain3d" and len(parts) > 1 and parts[1] != "__version__":
            yield line, parts[1]


def violations(member_name: str, imports: Iterator[tuple[int, str]]) -> list[tuple[int, str]]:
    """Imports of a member that go against the order."""
    allowed = ORDER[: ORDER.index(member_name) + 1]
    return [(line, name) for line, name in imports if name not in allowed]


def test_order__names_every_package_and_module() -> None:
    here = {p.stem for p in ROOT.glob("*.py")} | {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert here - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports__go_one_way(path: Path) -> None:
    assert violations(member(path), own_imports(path)) == []


def test_imports__a_wrong_one_is_seen(tmp_path: Path) -> None:
    module = tmp_path / "lazy.py"
    module.write_text("def f():\n    from terrain3d.pipeline.run import run_scene\n    from terrain3d import errors\n")
    assert violations("stereo", own_imports(module)) == [(2, "pipeline")]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports__are_absolute(path: Path) -> None:
    assert [line for line, name in imported(parse(path)) if name == "."] == []


def test_simulate__serves_only_the_demo() -> None:
    users = {name_of(p) for p in MODULES if any(name == "simulate" for _, name in own_imports(p))}
    assert {u for u in users if not u.startswith("simulate/")} == {"pipeline/demo.py"}


def terminal_uses(tree: ast.AST) -> list[tuple[int, str]]:
    """Calls of print, uses of the standard streams, and imports of logging."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            found.append((node.lineno, "print"))
        elif isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr") and _is_sys(node.value):
            found.append((node.lineno, node.attr))
    return found + [(line, name) for line, name in imported(tree) if name.split(".")[0] == "logging"]


def _is_sys(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "sys"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_terminal__is_left_to_the_command_line(path: Path) -> None:
    if member(path) not in MAY_WRITE_TO_THE_TERMINAL:
        assert terminal_uses(parse(path)) == []


def test_terminal__a_print_is_seen() -> None:
    assert terminal_uses(ast.parse("import sys\nprint(1)\nsys.stderr.write('a')")) == [(2, "print"), (3, "stderr")]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("__init__.py")), ids=name_of)
def test_packages__hold_no_code(path: Path) -> None:
    body = parse(path).body
    assert isinstance(body[0], ast.Expr), "a docstring says what the package holds"
    assert isinstance(body[0].value, ast.Constant)
    rest = body[1:]
    if path.parent == ROOT:
        rest = [n for n in rest if not (isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__version__")]
    assert rest == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules__are_small_and_say_what_they_hold(path: Path) -> None:
    assert ast.get_docstring(parse(path))
    assert len(path.read_text(encoding="utf-8").splitlines()) < MOST_LINES
