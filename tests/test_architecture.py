"""Imports point one way, and each heavy library has its modules."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Where the modules of each package lie; the first links to the others.
PACKAGES = {
    "lookalike": "lookalike",
    "lookalike.transforms": "transforms",
    "lookalike.pipelines": "pipelines",
}
# Where a library may be imported, and nowhere else; names of files without .py.
OWNERS = {
    "tensorflow": {"lookalike.models.saved_model", "lookalike.models.quiet_tf"},
    "faiss": {
        *(f"lookalike.ivf.{name}" for name in ("exporting", "rotation", "trained_index", "train")),
        "lookalike.ivf.invlists",
    },
    "PIL": {
        *(
            f"lookalike.images.{name}"
            for name in (
                "colour",
                "contact_sheet",
                "damage",
                "given",
                "heic_tiles",
                "preparing",
                "loading",
                "memory",
                "openers",
                "pixels",
                "quiet_pillow",
            )
        )
    },
    "pi_heif": {"lookalike.images.heic"},
    "cv2": {"lookalike.copies.geometry", "lookalike.copies.verifying"},
    "rawpy": {"lookalike.images.camera_raw"},
    "botocore": {"lookalike.store.s3_client"},
    "obstore": {"lookalike.store.object_requests", "lookalike.store.s3_heads"},
    "openvino": {"lookalike.models.openvino_engine"},
    "tensorflow_hub": {"lookalike.models.tf_hub"},
    "lance": {"lookalike.store.lance_dataset"},
    "kagglehub": {"lookalike.models.hub_process"},
    "jinja2": {"lookalike.report.templates"},
    "starlette": {
        *(
            f"lookalike.serve.{name}"
            for name in (
                "answers",
                "api",
                "gate",
                "picture_endpoints",
                "query_endpoints",
                "server",
                "site_endpoints",
                "view_endpoints",
            )
        ),
    },
    "uvicorn": {"lookalike.serve.server"},
    "pyarrow.fs": {"lookalike.store.storage"},
    "rich": {"lookalike.pipelines.progress", "lookalike.pipelines.terminal"},
    "yaml": {"lookalike.pipelines.config"},
}
# What no module of a package may import.
FORBIDDEN = {
    "lookalike": {"apache_beam", "argparse", "yaml", "lookalike.transforms", "lookalike.pipelines"},
    "lookalike.transforms": {"argparse", "yaml", "lookalike.pipelines"},
    "lookalike.pipelines": set(),
}
NOT_INSTALLED = {"tests", "benchmarks", "examples"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    return {
        ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(
            ".__init__"
        ): path
        for package, folder in PACKAGES.items()
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def imports(source: str) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it: `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imports_of(name: str) -> set[str]:
    return set(imports(modules()[name].read_text(encoding="utf-8")))


@cache
def taken(name: str) -> set[tuple[str, str]]:
    """(module, name) of what a module imports from others of the project."""
    return {
        (node.module or "", alias.name)
        for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module in modules()
        for alias in node.names
        if f"{node.module}.{alias.name}" not in modules()
    }


def uses(imported: set[str], library: str) -> bool:
    return any(one == library or one.startswith(f"{library}.") for one in imported)


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import a.b\ndef f():\n    from c import d as e\n    import g as h\n"
    assert set(imports(source)) == {"a.b", "c", "c.d", "g"}
    assert uses({"faiss.contrib"}, "faiss")
    assert not uses({"tensorflow_hub"}, "tensorflow")


def test_the_packages_are_found() -> None:
    assert {
        "lookalike",
        "lookalike.search.searcher",
        "lookalike.transforms.embed",
        "lookalike.pipelines.cli",
    } <= set(modules())


@pytest.mark.parametrize("name", modules())
def test_imports_point_one_way(name: str) -> None:
    imported = imports_of(name)
    package = max((one for one in PACKAGES if uses({name}, one)), key=len)
    wrong = {one for one in FORBIDDEN[package] | NOT_INSTALLED if uses(imported, one)}
    assert not wrong, f"{name} must not import {wrong}"


@pytest.mark.parametrize("name", modules())
def test_names_are_imported_from_where_they_are_defined(name: str) -> None:
    wrong = {
        f"{module}.{one}"
        for module, one in taken(name)
        if module != "lookalike" and one in {other for _, other in taken(module)}
    }
    assert not wrong


@pytest.mark.parametrize("library", OWNERS)
def test_heavy_libraries_stay_in_their_modules(library: str) -> None:
    users = {name for name in modules() if uses(imports_of(name), library)}
    assert users, f"nobody imports {library}: this test looks in the wrong place"
    assert users <= OWNERS[library], f"{library} must not be imported by {users - OWNERS[library]}"


def test_stores_are_seen_by_their_interface_alone() -> None:
    """Who asks what a store lies on is `open_store`, and the check of a folder to be written."""
    kinds = ("lookalike.store.folder", "lookalike.store.bucket")
    users = {name for name in modules() if any(uses(imports_of(name), kind) for kind in kinds)}
    assert users == {"lookalike.store.objects", "lookalike.pipelines.checks"}


def test_transforms_keep_to_what_every_engine_does_rightly() -> None:
    """Tagged outputs get mixed on some, what the end of a bundle gives is lost, and a worker that
    is killed tears nothing down."""
    ends: set[str] = set()
    for path in sorted((ROOT / "transforms").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        wrong = named & {
            "with_outputs",
            "TaggedOutput",
            "AsSingleton",
            "AsIter",
            "AsList",
            "AsDict",
        }
        assert not wrong, f"{path.name} uses {wrong}"
        for kind in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            methods = {one.name for one in kind.body if isinstance(one, ast.FunctionDef)}
            ends |= {f"{kind.name}.{one}" for one in methods & {"finish_bundle", "teardown"}}
    assert ends == {
        "_EmbedFilesFn.finish_bundle",  # that of `EmbedImages`, for users
        "_EmbedFilesFn.teardown",  # of the decoder, which ends with its worker
        "_WorkFn.finish_bundle",  # gives nothing, but waits: records are what counts
        "_WorkFn.teardown",  # of threads and the decoder: both end with their worker
    }


def test_no_module_imports_two_heavy_libraries() -> None:
    heavy = ("tensorflow", "openvino", "faiss", "PIL", "rawpy", "apache_beam")
    for name in modules():
        used = [library for library in heavy if uses(imports_of(name), library)]
        assert len(used) <= 1, f"{name} imports {used}"


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import lookalike", ("tensorflow", "faiss", "apache_beam", "PIL", "pyarrow", "yaml")),
        ("import lookalike.search.searcher", ("tensorflow", "apache_beam", "PIL", "yaml")),
        ("import lookalike.embedding", ("tensorflow", "openvino", "faiss", "apache_beam", "yaml")),
        (
            "import lookalike.pipelines.cli",
            ("tensorflow", "faiss", "apache_beam", "jinja2", "rich", "starlette", "uvicorn"),
        ),
        (
            "import lookalike.pipelines.query",
            ("tensorflow", "apache_beam", "jinja2", "rich", "yaml"),
        ),
        ("import lookalike.images.decoder_process", ("pyarrow", "openvino", "tensorflow")),
        ("import lookalike.pipelines.index", ("tensorflow", "apache_beam", "jinja2", "rich")),
        ("import lookalike.pipelines.ingest", ("tensorflow", "apache_beam", "jinja2", "rich")),
    ],
)
def test_imports_stay_cheap(statement: str, absent: tuple[str, ...]) -> None:
    """In a fresh interpreter, outside the checkout."""
    script = f"import sys\n{statement}\nprint(*sorted(set({absent!r}) & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == []


@pytest.mark.parametrize("name", modules())
def test_no_assert_protects_data(name: str) -> None:
    """`python -O` drops them: they may tell mypy what is so, and what is not must be an error."""
    told = re.compile(r"[\w.]+ is not None|(not )?isinstance\(\w+, \w+\)")
    found = [
        ast.unparse(node.test)
        for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert [one for one in found if not told.fullmatch(one)] == []


def test_files_beside_the_modules_are_installed(tmp_path: Path) -> None:
    """Templates, golden files and the like: an editable install would hide that one is missing."""
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    beside = {
        path.relative_to(ROOT)
        for path in (ROOT / "lookalike").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert Path("lookalike/report/page.html.jinja") in beside
    assert {path for path in beside if not (tmp_path / path).is_file()} == set()


def test_top_level_names_belong_to_this_distribution_alone() -> None:
    owners = importlib.metadata.packages_distributions()
    try:
        importlib.metadata.distribution("lookalike")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("lookalike is not installed here; `make test` installs it")
    # an editable install lists no files below its folder, and so may not be named at all
    assert set(owners.get("lookalike", ["lookalike"])) == {"lookalike"}
    for name in (*NOT_INSTALLED, "transforms", "pipelines"):
        assert "lookalike" not in owners.get(name, []), name


def test_no_circle_between_folders() -> None:
    """What a folder of the library imports never leads back to it; files beside it count alone."""

    def place(name: str) -> str:
        parts = name.split(".")
        folder = (ROOT / "lookalike" / parts[1]).is_dir() if len(parts) > 1 else False
        return ".".join(parts[:2]) if folder or len(parts) > 1 else name

    edges: dict[str, set[str]] = {}
    for name in modules():
        if name == "lookalike" or uses({name}, "lookalike.transforms"):
            continue
        if uses({name}, "lookalike.pipelines"):
            continue
        found = {place(one) for one in imports_of(name) if uses({one}, "lookalike")}
        edges.setdefault(place(name), set()).update(found - {"lookalike", place(name)})
    assert "lookalike.store" in edges["lookalike.search"]
    reached: dict[str, set[str]] = {}
    for start in edges:
        reached[start], left = set(), [start]
        while left:
            for one in edges.get(left.pop(), set()) - reached[start]:
                reached[start].add(one)
                left.append(one)
    assert {start for start in edges if start in reached[start]} == set()


TYPED = ("lookalike.store.", "lookalike.search.", "lookalike.recall.")


@pytest.mark.parametrize("name", [name for name in modules() if name.startswith(TYPED)])
def test_public_signatures_say_what_is_in_a_dictionary(name: str) -> None:
    vague = [
        function
        for function, annotation in signatures(modules()[name].read_text(encoding="utf-8"))
        if "dict[str, Any]" in annotation
    ]
    assert not vague, f"{name}: {vague}: name a TypedDict, a dataclass or a Mapping"


def signatures(source: str) -> Iterator[tuple[str, str]]:
    """Public functions, and each annotation of what they take and return."""
    around: list[ast.AST] = [ast.parse(source)]
    while around:
        for node in ast.iter_child_nodes(around.pop()):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                around.append(node)
            elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                for annotation in (*(one.annotation for one in given), node.returns):
                    if annotation is not None:
                        yield node.name, ast.unparse(annotation)


def test_signatures_are_those_of_methods_too_but_not_of_what_is_private() -> None:
    source = "class A:\n def f(self, a: int, *, b: str) -> B: ...\n def _g(self) -> C: ...\n"
    source += "class _D:\n def h(self) -> E: ...\ndef i() -> dict[str, Any]: ...\n"
    found = [("f", "int"), ("f", "str"), ("f", "B"), ("i", "dict[str, Any]")]
    assert sorted(signatures(source)) == sorted(found)
