"""Imports point one way: a module imports from the layers below its own."""

import ast
import pathlib

import keras_vae

ROOT = pathlib.Path(keras_vae.__file__).parent

# Layer of each module of the package, or of its folder.
LAYERS = {
    "checks": 0,
    "random": 0,
    "schedules": 0,
    "distribute": 0,
    "workers": 0,
    "execution": 0,
    "input": 0,
    "sources": 0,
    "nets": 0,
    "datasets": 0,
    "resumable": 1,
    "distributions": 1,
    "objectives": 2,
    "models": 3,
    "evaluation": 4,
    "callbacks": 5,
    "signatures": 5,
    "exporting": 6,
    "report": 6,
    "run": 6,
    "cli": 7,
}
# Doors to the layers above, inside a method.
DOORS = {("models", "signatures"), ("models", "evaluation"), ("models", "exporting")}
# Within layer 0: argument checks, and the one place where noise is made.
BESIDE = {
    ("schedules", "checks"),
    ("nets", "checks"),
    ("distribute", "checks"),
    ("distribute", "workers"),
    ("input", "checks"),
    ("input", "random"),
    ("input", "sources"),
    ("sources", "checks"),
    ("datasets", "sources"),
}


def imports():
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT).parts
        if place == ("__init__.py",):
            continue
        name = place[0].removesuffix(".py")
        tree = ast.parse(path.read_text())
        top = set(tree.body)
        for node in ast.walk(tree):
            modules = []
            if isinstance(node, ast.ImportFrom) and node.module == "keras_vae":
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "keras_vae."
            ):
                modules = [node.module.split(".")[1]]
            elif isinstance(node, ast.Import):
                parts = [a.name.split(".") for a in node.names]
                modules = [p[1] for p in parts if p[0] == "keras_vae" and len(p) > 1]
            for module in modules:
                yield "/".join(place), name, module, node in top


def test_every_module_has_a_layer():
    names = {p.stem if p.is_file() else p.name for p in ROOT.iterdir()}
    assert names - {"__init__", "__main__", "__pycache__", "py.typed"} <= set(LAYERS)


def test_imports_point_down():
    wrong = [
        f"{path} imports {imported}"
        for path, importer, imported, at_top in imports()
        if importer != imported
        and LAYERS[imported] >= LAYERS[importer]
        and not ((importer, imported) in DOORS and not at_top)
        and (importer, imported) not in BESIDE
    ]
    assert wrong == []


def test_evaluation_receives_models():
    wrong = [
        path
        for path, importer, imported, _ in imports()
        if importer == "evaluation" and imported == "models"
    ]
    assert wrong == []
