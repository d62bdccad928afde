"""The floors of the house: who may import whom, and that no two files need each other."""

import ast
from pathlib import Path

import pytest

from tests.conftest import PROJECT

FLOORS = (
    ("runtime",),
    ("captures",),
    ("renderer",),
    ("fitting",),
    ("diffusion", "photos", "studio"),
    ("likeness",),
    ("triavatar",),
    ("studies",),
)
"""From the ground up; packages of one floor don't know each other."""
LEVEL = {name: level for level, floor in enumerate(FLOORS) for name in floor}
MOST_FILES = 16
MOST_LINES, MOST_ARGUMENTS = 120, 12
"""Of a function; constructors of models name all of their settings and may take more."""


def modules() -> dict[str, Path]:
    """Dotted name → file of everything in the floors' packages."""
    found = {}
    for package in LEVEL:
        for path in (PROJECT / package).rglob("*.py"):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the project that a file imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module in known and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
    return found


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imports(path, known) - {name} for name, path in known.items()}


def test_no_import_goes_up(graph):
    wrong = []
    for name, needed in graph.items():
        own = name.split(".")[0]
        for other in needed:
            package = other.split(".")[0]
            if package != own and LEVEL[package] >= LEVEL[own]:
                wrong.append(f"{name} imports {other}")
    assert not wrong, "\n".join(sorted(wrong))


def test_no_files_import_each_other(graph):
    """Kahn: taking away what needs nothing more must leave nothing."""
    left = {name: set(needed) for name, needed in graph.items()}
    while free := {name for name, needed in left.items() if not needed & left.keys()}:
        left = {name: needed for name, needed in left.items() if name not in free}
    assert not left, f"cycles among {sorted(left)}"


def test_no_folder_is_crowded():
    crowded = {}
    for package in LEVEL:
        for folder in [PROJECT / package, *(PROJECT / package).rglob("*")]:
            files = [f for f in folder.glob("*.py") if f.name != "__init__.py"]
            if len(files) > MOST_FILES:
                crowded[str(folder.relative_to(PROJECT))] = len(files)
    assert not crowded, crowded


def test_functions_are_short_and_take_little():
    wrong = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                given = node.args
                count = len(given.posonlyargs + given.args + given.kwonlyargs)
                lines = node.end_lineno - node.lineno + 1
                if lines > MOST_LINES or (count > MOST_ARGUMENTS and node.name != "__init__"):
                    wrong.append(f"{name}.{node.name}: {lines} lines, {count} arguments")
    assert not wrong, "\n".join(wrong)


def test_every_import_is_found():
    """The graph above sees the imports that matter: a known one of each kind."""
    known = modules()
    assert "renderer.cuda.backend" in imports(known["renderer.backend"], known)  # within a function
    assert "runtime.errors" in imports(known["captures.multiview"], known)
