"""What holds for the repository as a whole: import contracts, licence, locks, tracked files."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import metadata, requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import bloodfilm

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "bloodfilm"
LOCKS = ("locks/run.txt", "locks/dev.txt", "locks/docs.txt")
NOT_CODE = shutil.ignore_patterns("__pycache__", "*.onnx", "*.npz")
TORCH_SIDE = {"training", "export", "models", "losses"}

IMAGE_SUFFIXES = {
    ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".mrxs", ".ndpi", ".png", ".scn", ".svs", ".tif",
    ".tiff", ".webp",
}  # fmt: skip


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def tracked_files() -> list[Path]:
    """List the files git tracks that are on disk; skips in a copy without git."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone: which files are tracked is git's to say")
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def rooms() -> set[str]:
    """Name the packages and modules directly inside `bloodfilm`."""
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    modules = {path.stem for path in SOURCE.glob("*.py")}
    return packages | modules - {"__init__", "__main__"}


# ---- imports ------------------------------------------------------------------------------------


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts on the `bloodfilm` package inside `folder`."""
    lint = Path(sys.executable).with_name("lint-imports")
    command = [str(lint), "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_import_contracts_hold() -> None:
    done = lint_imports(SOURCE.parent)
    assert done.returncode == 0, done.stdout + done.stderr


BREACHES = (
    ("core/boxes.py", "import bloodfilm.imaging", "bloodfilm.core.boxes -> bloodfilm.imaging"),
    ("imaging/tiles.py", "import bloodfilm.models", "bloodfilm.imaging.tiles -> bloodfilm.models"),
    ("core/boxes.py", "import torch.nn", "bloodfilm.core.boxes -> torch"),
    ("cli/app.py", "def f(): import torch", "bloodfilm.cli.app -> torch"),
    ("attic.py", "", "bloodfilm.attic"),
)
"""Modules, what is added to each, and what the contracts must say of it."""


def test_the_contracts_notice_breaches(tmp_path: Path) -> None:
    package = shutil.copytree(SOURCE, tmp_path / "bloodfilm", ignore=NOT_CODE)
    for module, line, _ in BREACHES:
        with (package / module).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    said = " ".join(done.stdout.split())
    assert done.returncode == 1, done.stdout + done.stderr
    for contract in ("Imports go one way", "Only training, export, models and losses"):
        assert re.search(rf"{contract}.* BROKEN", done.stdout), done.stdout
    missing = [wanted for *_, wanted in BREACHES if wanted not in said]
    assert not missing, done.stdout


def test_importing_every_torch_free_module_leaves_torch_out() -> None:
    code = f"""
import importlib, pkgutil, sys
for room in {sorted(rooms() - TORCH_SIDE)!r}:
    package = importlib.import_module("bloodfilm." + room)
    inside = pkgutil.walk_packages(getattr(package, "__path__", ()), package.__name__ + ".")
    for name in [package.__name__, *(found.name for found in inside)]:
        importlib.import_module(name)
        heavy = {{"torch", "torchvision", "timm"}} & set(sys.modules)
        assert not heavy, f"{{name}} imports {{heavy}}"
        print(name)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"bloodfilm.core.polygons", "bloodfilm.cli.app"} <= set(done.stdout.split())


def test_public_names_are_those_of_the_stub() -> None:
    tree = ast.parse((SOURCE / "__init__.pyi").read_text("utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = [alias.asname for node in imports for alias in node.names]
    assert all(alias.name == alias.asname for node in imports for alias in node.names)
    assert sorted(bloodfilm.__all__) == sorted([*names, "__version__"])
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", bloodfilm.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(bloodfilm, name) is not None
    assert name in dir(bloodfilm)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Leucocyte'"):
        _ = bloodfilm.Leucocyte


# ---- licence, dependencies, locks ---------------------------------------------------------------


def test_licence_and_version_metadata() -> None:
    about = metadata("bloodfilm")
    assert about["License-Expression"] == "Apache-2.0"
    assert about["Version"] == bloodfilm.__version__
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence


def test_the_base_install_brings_no_torch() -> None:
    base = {r.name for r in map(Requirement, requires("bloodfilm") or ()) if r.marker is None}
    assert "onnxruntime" in base
    assert base & {"torch", "torchvision", "timm", "onnx", "scipy", "pandas"} == set()


def locked(lock: str) -> list[Requirement]:
    lines = (ROOT / lock).read_text("utf-8").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_versions_and_names_no_place(lock: str) -> None:
    for requirement in locked(lock):
        assert requirement.url is None, requirement
        assert [pin.operator for pin in requirement.specifier] == ["=="], requirement
        assert "+" not in str(requirement.specifier), f"{requirement} is one machine's own build"
        assert not re.match(r"nvidia-|cuda-|triton", requirement.name), requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_what_pyproject_asks_for(lock: str) -> None:
    project = pyproject()
    wanted = list(project["project"]["dependencies"])
    if lock == "locks/docs.txt":
        wanted = project["dependency-groups"]["docs"]
    elif lock == "locks/dev.txt":
        wanted += [
            w for extra in project["project"]["optional-dependencies"].values() for w in extra
        ]
        wanted += project["dependency-groups"]["dev"]
    pins: dict[str, list[str]] = {}
    for pin in locked(lock):
        pins.setdefault(pin.name, []).append(str(pin.specifier).removeprefix("=="))
    for requirement in map(Requirement, wanted):
        versions = pins.get(requirement.name.lower(), [])
        assert versions, f"{requirement} is not in {lock}; run: make lock"
        assert all(version in requirement.specifier for version in versions), requirement


def test_the_run_lock_is_a_part_of_the_development_lock() -> None:
    assert {str(pin) for pin in locked("locks/run.txt")} <= {
        str(pin) for pin in locked("locks/dev.txt")
    }


# ---- what git tracks ----------------------------------------------------------------------------

# Spelt in pieces, so that this file passes its own test.
HOSTS = tuple(
    ".".join(pieces)
    for pieces in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("debian", "org"),
        ("download", "pytorch", "org"),
    )
)
MACHINE_PATH = re.compile(
    "(?<![A-Za-z0-9_.~-])/(" + "|".join(("work", "farm", "opt", "root")) + ")/"
)


def test_no_tracked_text_names_a_package_host_or_a_path_of_one_machine() -> None:
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
            if any(host in line for host in HOSTS) or MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("see /" + "work/shared", True),
        ('"/' + 'opt/wheels"', True),
        ("a/run/b", False),
        ("../run/b", False),
        ("work/", False),
    ],
)
def test_the_pattern_of_machine_paths(line: str, bad: bool) -> None:
    assert bool(MACHINE_PATH.search(line)) is bad


def test_tracked_images_are_rendered_ones_in_docs() -> None:
    images = {
        path.relative_to(ROOT) for path in tracked_files() if path.suffix.lower() in IMAGE_SUFFIXES
    }
    assert {image for image in images if image.parts[0] != "docs"} == set()


def test_no_tracked_file_is_a_copy_of_real_data(real_data: Path) -> None:
    tracked: dict[int, list[Path]] = {}
    for path in tracked_files():
        if size := path.stat().st_size:
            tracked.setdefault(size, []).append(path)
    copies = []
    for folder, _, names in os.walk(real_data):
        for name in names:
            real = Path(folder, name)
            for path in tracked.get(real.stat().st_size, ()):
                if path.read_bytes() == real.read_bytes():
                    copies.append((path.relative_to(ROOT), real.relative_to(real_data)))
    assert copies == []


def test_the_ci_script_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


# ---- documents ----------------------------------------------------------------------------------

DOCUMENTS = ("*.md", "docs/**/*.md", "src/**/*.md", ".github/**/*.md")
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
_HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)


def documents() -> list[Path]:
    return sorted({path for pattern in DOCUMENTS for path in ROOT.glob(pattern)})


def anchor(heading: str) -> str:
    """The anchor that renderers give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("document", documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_of_documents_lead_somewhere(document: Path) -> None:
    broken = []
    for target, part in _LINK.findall(document.read_text("utf-8")):
        path = document.parent / target if target else document
        if not path.exists():
            broken.append(target)
        elif part and path.suffix == ".md":
            anchors = {anchor(h) for h in _HEADING.findall(path.read_text("utf-8"))}
            if part not in anchors:
                broken.append(f"{target}#{part}")
    assert not broken


def test_the_version_is_in_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"## [{bloodfilm.__version__}]" in text
    assert "## [Unreleased]" in text


def test_a_term_that_has_a_better_word_is_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    terms = str(ROOT / ".codespell" / "terms.txt")
    command = [sys.executable, "-m", "codespell_lib", "-D", terms, str(page)]
    for text, code in (("labels are mended", 65), ("labels are repaired", 0)):
        page.write_text(text, "utf-8")
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == code, done.stdout + done.stderr
