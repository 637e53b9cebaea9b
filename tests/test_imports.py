"""The arrows between modules go one way: types and errors, pure modules, plug-in folders, roles, commands."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = {
    0: "types errors",
    1: "config setting_kinds settings_layers settings_text plugins wire cloudevents schema dispatch track smooth "
    "timeline journal attention motion shared jpeg link encoder keys deployment endpoint metrics models external "
    "environment pixels quality process extras palette privacy folders machine instances logs replay origins",
    2: "sources detectors classifiers transports sinks",
    3: "recognizer publisher roster capture worker aggregator subscription client children supervisor desk outlet "
    "summary run doctor live",
    4: "analysis commands cli __main__",
}
"""What stands where; a new module or folder must find its place here, or the test tells that it has none."""

FOLDERS = ("sources", "detectors", "classifiers", "transports", "sinks")

PLACE = {name: layer for layer, names in LAYERS.items() for name in names.split()}


def modules(package: str) -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, name: str, known: dict[str, Path]) -> set[str]:
    """Return the known modules that a file imports when it runs, at its top or in a function."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in known else base)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


OURS = modules("fer_stream")
GRAPH = {name: imports(path, name, OURS) for name, path in OURS.items()}


def place(module: str) -> int:
    return PLACE[module.split(".")[1]]


def test_the_graph_is_seen() -> None:
    """Were nothing found, everything below would hold."""
    assert len(OURS) > 40
    assert "fer_stream.protocol.wire" in GRAPH["fer_stream.aggregator.aggregator"]
    assert "fer_stream.journal" in GRAPH["fer_stream.cli.doctor"], "an import in a function counts"
    assert "fer_stream.settings.tree" not in GRAPH["fer_stream.aggregator.dispatcher"], (
        "one for the type checker alone does not"
    )


@pytest.mark.parametrize("module", sorted(set(OURS) - {"fer_stream"}))
def test_a_module_imports_only_what_stands_below_it(module: str) -> None:
    assert module.split(".")[1] in PLACE, f"{module} has no place in LAYERS"
    for other in GRAPH[module] & set(OURS) - {"fer_stream"}:
        assert place(other) <= place(module), f"{module} imports {other}, which stands above it"


def test_types_import_nothing_of_ours() -> None:
    for module in ("fer_stream.types", "fer_stream.errors"):
        assert not GRAPH[module] & set(OURS)


def test_the_package_itself_imports_types_and_errors_alone() -> None:
    assert GRAPH["fer_stream"] & set(OURS) == {"fer_stream.types", "fer_stream.errors"}


def test_plug_in_folders_do_not_know_each_other() -> None:
    for module, others in GRAPH.items():
        folder = module.split(".")[1] if "." in module else ""
        if folder in FOLDERS:
            known = {other.split(".")[1] for other in others if other.startswith("fer_stream.")}
            assert not known & set(FOLDERS) - {folder}, f"{module} imports from another plug-in folder"


def test_roles_know_no_plug_in_by_name() -> None:
    """They ask the loader; only what all sources share is imported directly."""
    for module, others in GRAPH.items():
        if module != "fer_stream" and place(module) == 3:
            inside = {other for other in others if other.count(".") > 1 and other.split(".")[1] in FOLDERS}
            assert not inside, f"{module} imports {inside}"


def test_there_is_no_circle() -> None:
    # The package's own names (its version) stand in no module's way.
    graph = {module: (others & set(OURS)) - {"fer_stream", module} for module, others in GRAPH.items()}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")
    assert set(OURS) <= set(order)


def test_training_knows_the_package_and_the_package_knows_no_training() -> None:
    training = modules("training")
    graph = {name: imports(path, name, training | OURS) for name, path in training.items()}
    assert any(other.startswith("fer_stream") for others in graph.values() for other in others)
    for module, others in GRAPH.items():
        strangers = {other for other in others if other.split(".")[0] in ("training", "tests")}
        assert not strangers, f"{module} imports {strangers}"
