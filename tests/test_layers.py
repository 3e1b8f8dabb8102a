"""The house: a room imports only from rooms above it, modules and functions stay short, heavy imports stay lazy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import qlearn

PACKAGE = Path(qlearn.__file__).parent
ROOMS = [
    "errors", "progress", "numbers", "schemes", "calibrators", "engines", "hookspecs", "builtins", "registry", "graph",
    "integer", "pipeline", "repair", "analysis", "export", "zoo", "testing", "viz", "report", "classroom", "cli",
    "__main__",
]  # fmt: skip
MAY_DRAW = {"viz", "report", "classroom", "cli"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "qlearn" else [f"qlearn.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("qlearn.")}
    return found & set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_rooms_above(path):
    room = room_of(path)
    assert room in ROOMS, f"{room} is no room of the house: give it a place in the list"
    below = {other for other in imported_rooms(path) if ROOMS.index(other) > ROOMS.index(room)}
    assert not below, f"{path.name} in {room} imports from below: {sorted(below)}"
    if room not in MAY_DRAW:
        assert "viz" not in imported_rooms(path)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_stay_short(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 300, "a module over 300 lines has two purposes"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert length <= 40, f"{node.name} has {length} lines"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import qlearn", ["torch", "numpy", "matplotlib", "pluggy"]),
        ("import qlearn.cli; qlearn.cli._parser().format_help()", ["torch", "numpy", "matplotlib"]),
        ("import qlearn.cli; qlearn.cli.main(['plugins', '--names'])", ["torch"]),
        ("import qlearn.integer.model, qlearn.integer.files", ["torch", "matplotlib", "pluggy"]),
        ("import qlearn; qlearn.quantize_model, qlearn.load", ["matplotlib", "h5py", "safetensors", "PIL"]),
    ],
)
def test_heavy_modules_are_imported_where_they_are_used(code, absent):
    program = f"import sys; {code}; print([m for m in {absent} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_public_face_is_sorted_complete_and_importable():
    assert qlearn.__all__ == sorted(qlearn.__all__)
    for name in qlearn.__all__:
        assert getattr(qlearn, name).__doc__, name
        assert name in dir(qlearn)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = qlearn.nope


def test_the_type_checkers_see_the_same_face():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == qlearn._HOMES
