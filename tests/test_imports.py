"""Imports follow the layers: a module imports only from earlier layers."""

import ast
import pathlib
import re

import keras_vae

ROOT = pathlib.Path(keras_vae.__file__).parent

# The layers in the order of CONTRIBUTING.md; each is a module or a folder.
LAYERS = [
    "escapes",
    "checks",
    "disks",
    "atomic",
    "typed_files",
    "configured",
    "ciphers",
    "random",
    "schedules",
    "nets",
    "distributions",
    "terms",
    "objectives",
    "datasets",
    "training",
    "conditions",
    "models",
    "evaluation",
    "callbacks",
    "exporting",
    "cluster",
    "runs",
    "cli",
]


def modules():
    """Yields (layer, path, syntax tree) of each module below the package's own."""
    for path in sorted(ROOT.rglob("*.py")):
        layer = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if layer != "__init__":
            yield layer, path.relative_to(ROOT), ast.parse(path.read_text())


def imports(tree):
    """Yields (imported layer, True if at the top of the module) for each import."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module == "keras_vae":
            names = [f"keras_vae.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "keras_vae" and rest:
                yield rest.split(".")[0], node in tree.body


def test_contributing_lists_the_layers_in_this_order():
    text = (ROOT.parent / "CONTRIBUTING.md").read_text()
    table = text.split("| layer |")[1].split("\n\n")[0]
    listed = re.findall(r"^\| `(\w+)/?` \|", table, re.MULTILINE)
    assert listed == LAYERS


def test_every_module_has_a_layer():
    names = {path.stem if path.is_file() else path.name for path in ROOT.iterdir()}
    assert names - {"__init__", "__pycache__", "py"} == {*LAYERS}


def test_imports_point_to_earlier_layers():
    wrong = [
        f"{path} imports {imported}"
        for layer, path, tree in modules()
        for imported, at_top in imports(tree)
        if at_top and LAYERS.index(imported) > LAYERS.index(layer)
    ]
    assert wrong == []


def test_only_models_import_later_layers_and_only_inside_methods():
    # `VAE.sample`, `log_likelihood` and `export` use layers that are built on models.
    late = {
        (layer, imported)
        for layer, _, tree in modules()
        for imported, at_top in imports(tree)
        if not at_top and LAYERS.index(imported) > LAYERS.index(layer)
    }
    assert late == {("models", "evaluation"), ("models", "exporting")}


def test_there_are_no_circular_imports():
    trees = {}
    for _, path, tree in modules():
        name = ".".join(("keras_vae", *path.with_suffix("").parts))
        trees[name.removesuffix(".__init__")] = tree
    uses = {name: set() for name in trees}
    for name, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                members = [f"{node.module}.{alias.name}" for alias in node.names]
                found = {m if m in trees else node.module for m in members}
                uses[name] |= found & trees.keys()
    while leaves := {name for name, used in uses.items() if not used}:
        uses = {name: used - leaves for name, used in uses.items() if name not in leaves}
    assert uses == {}


def test_public_functions_are_annotated():
    missing = []
    for _, path, tree in modules():
        public = [node for node in tree.body if not _is_private(node)]
        classes = [node for node in public if isinstance(node, ast.ClassDef)]
        public += [node for c in classes for node in c.body if not _is_private(node)]
        for node in public:
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                arguments += filter(None, [node.args.vararg, node.args.kwarg])
                arguments = [a for a in arguments if a.arg not in ("self", "cls")]
                annotated = node.returns is not None or node.name == "__init__"
                if not annotated or not all(a.annotation for a in arguments):
                    missing.append(f"{path} {node.name}")
    assert missing == []


def _is_private(node):
    name = getattr(node, "name", "_")
    return name.startswith("_") and name != "__init__"


def test_one_module_imports_tensorflow_probability():
    pattern = re.compile(r"^\s*(import|from) tensorflow_probability", re.MULTILINE)
    found = [path for path in ROOT.rglob("*.py") if pattern.search(path.read_text())]
    assert found == [ROOT / "distributions" / "tfd.py"]
