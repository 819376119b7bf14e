"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("kernels", "deployments", "serve_app", "k8s")
KERNELS_MAY = {"torch", "triton", "numba", "numpy", "kernels", *sys.stdlib_module_names}
ONLY_IN = {
    "av": ("deployments/media/",),
    "triton": ("kernels/",),
    "ray": ("serve_app/app.py", "serve_app/router.py", "serve_app/batch.py"),
    "fastapi": ("serve_app/app.py", "serve_app/api/"),
    "starlette": ("serve_app/api/",),
    "sqlalchemy": ("serve_app/jobs/",),
    "fsspec": ("serve_app/media_store.py",),
    "httpcore": ("serve_app/intake/",),
}
FORBIDDEN_CALLS = {"eval", "exec", "pickle.load", "pickle.loads", "os.system", "torch.load"}
ENGINE_FILES = {"README.md", "__init__.py", "config.py", "fit.py", "motion.py", "render.py", "engine.py", "deployment.py"}
MAX_LINES = 400
MAX_FUNCTION = 60
ENGINES = sorted(path.parent for path in (ROOT / "deployments" / "engines").glob("*/engine.py"))
SOURCES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    layer = LAYERS.index(name_of(path).split("/")[0])
    for module in imports(path):
        root = module.split(".")[0]
        assert root not in LAYERS[layer + 1 :], f"{module}: a lower layer never imports a higher one"
        for guest, places in ONLY_IN.items():
            assert root != guest or name_of(path).startswith(places), f"{module} belongs into {places}"
        if layer == 0:
            assert root in KERNELS_MAY, f"kernels import only tensors, got {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "deployments" / "engines").glob("*/*.py")), ids=name_of)
def test_engines_never_import_one_another(path: Path) -> None:
    own = path.parent.name
    for module in imports(path):
        parts = module.split(".")
        if parts[:2] == ["deployments", "engines"] and len(parts) > 2:
            assert parts[2] in (own, "scaling")


@pytest.mark.parametrize("folder", ENGINES, ids=lambda path: path.name)
def test_every_engine_has_the_same_files(folder: Path) -> None:
    if folder.name == "fake":
        return
    assert not ENGINE_FILES - {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            limit = MAX_FUNCTION if "kernels" not in path.parts else 100
            assert node.end_lineno - node.lineno < limit, f"{node.name} is longer than {limit} lines"
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            assert not bare, f"{node.name}: {bare} without a type"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_unpickled_or_given_to_a_shell(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in FORBIDDEN_CALLS, called
            for keyword in node.keywords:
                assert keyword.arg != "shell", "no shell"
                assert keyword.arg != "allow_pickle" or ast.unparse(keyword.value) == "False"


def test_the_environment_is_read_in_two_files() -> None:
    readers = [name_of(path) for path in SOURCES if "os.environ.get" in path.read_text() or "os.getenv" in path.read_text()]
    assert set(readers) <= {"deployments/settings.py", "serve_app/executor.py"}  # the executor sets thread counts


def test_importing_the_application_is_light() -> None:
    code = "import serve_app, sys; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'cv2', 'av')))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_command_line_answers_without_the_heavy_parts() -> None:
    code = "import serve_app.cli, sys; sys.exit(any(m in sys.modules for m in ('torch', 'cv2', 'av', 'numba')))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_public_package_kernels_is_not_a_dependency() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert all("==" in item for item in wanted) and not any(item.startswith("kernels") for item in wanted)
