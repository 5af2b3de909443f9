"""Start-up stays quick because nothing heavy is imported; the seconds are for benchmarks/."""

import subprocess
import sys

import pytest

HEAVY = {
    "cv2", "faster_coco_eval", "jinja2", "numpy", "onnx", "onnxruntime", "PIL", "pyarrow",
    "pydantic", "rich", "scipy", "sklearn", "timm", "torch", "torchvision", "yaml",
}  # fmt: skip

IMPORT = "import bloodfilm"
HELP = """
import bloodfilm.cli.app, contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
    bloodfilm.cli.app.app(["--help"])
assert "Usage" in shown.getvalue()
"""


def loaded_after(code: str) -> set[str]:
    """Name the top-level packages that a new interpreter holds after running `code`."""
    report = "\nimport sys\nprint(*sorted({name.partition('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-c", code + report]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("code", [IMPORT, HELP], ids=["import", "help"])
def test_start_up_imports_nothing_heavy(code: str) -> None:
    loaded = loaded_after(code)
    assert "bloodfilm" in loaded
    assert loaded & HEAVY == set()


def test_the_measure_would_notice_a_heavy_import() -> None:
    assert "numpy" in loaded_after("import bloodfilm\nbloodfilm.Region")
