"""A pipe, a device or a folder in the place of an input file is refused, never waited for."""

import os
import shutil
import signal
from pathlib import Path

import pytest

import bloodfilm
from bloodfilm.core import Cell, Dataset, Field
from bloodfilm.core.errors import BloodfilmError
from bloodfilm.formats import save_dataset
from bloodfilm.inference.checksums import SUMS, sums_of
from bloodfilm.workflows.analyze import AnalysisJob, analyze
from fake_bundle import draw, lay_out, save, write_bundle

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes and devices of POSIX")

FORMATS = {
    "bloodfilm": "x.json",
    "coco": "x.json",
    "label_studio": "x.json",
    "cvat": "x.xml",
    "index": "x.parquet",
    "qupath": "a.png.geojson",
    "voc": "Annotations/a.xml",
    "yolo": "labels/train/a.txt",
    "lld": "H_40X_C2/json_labels/train.json",
}
WAIT = 60


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def folder(path):
    path.mkdir()


KINDS = pytest.mark.parametrize("kind", [pipe, device, folder])


def answer(read, *args):
    """Return what a reader says; an alarm ends one that waits for a pipe."""

    def ring(*_):
        raise TimeoutError("waited")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(WAIT)
    try:
        read(*args)
    except BloodfilmError as error:
        return f"refused: {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return "read"


def exchange(path, kind):
    assert path.is_file(), path
    path.unlink()
    kind(path)


def read_all(path, format):
    dataset = bloodfilm.open_dataset(path, format)
    problems = list(dataset.problems)
    cells = sum(len(item.cells) for item in dataset)
    if not problems and not cells:
        raise AssertionError("nothing is read, and nothing is said")
    if not problems:
        raise AssertionError("it was read")
    raise BloodfilmError(problems[0])


@KINDS
@pytest.mark.parametrize("format", FORMATS)
def test_in_the_place_of_labels(tmp_path, format, kind):
    pytest.importorskip("pyarrow")
    picture = save(tmp_path / "7_1_2_400_AML" / "a.png", draw([], (64, 48)))
    cell = Cell((2, 2, 20, 20), "lymphocyte")
    dataset = Dataset("x", (Field(picture, 64, 48, (cell,), split="train"),))
    target = tmp_path / "set" / f"x{Path(FORMATS[format]).suffix}"
    single = "/" not in FORMATS[format] and format != "qupath"
    save_dataset(dataset, target if single else target.parent, format, images="copy")
    if format == "lld":
        labels = next((tmp_path / "set").rglob("train.json"))
    else:
        labels = next((tmp_path / "set").rglob(FORMATS[format].rpartition("/")[2]))
    exchange(labels, kind)
    said = answer(read_all, target if single else target.parent, format)
    assert said.startswith("refused: "), said


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def film(path):
    save(path, draw(lay_out(120.0, 80.0, [(40.0, 40.0, "monocyte")]), (480, 320)))


@pytest.fixture
def stopped(tmp_path, bundle):
    """A folder with results and a log, as a run with a failed file leaves them."""
    film(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    job = AnalysisJob(paths=[tmp_path / "in"], out=tmp_path / "out", bundle=bundle, report=False)
    analyze(job)
    return tmp_path


def resume(place, bundle):
    analyze(
        AnalysisJob(
            paths=[place / "in"],
            out=place / "out",
            bundle=bundle,
            report=False,
            existing="resume",
        )
    )


@KINDS
@pytest.mark.parametrize("name", ["results.part.jsonl", "result.json"])
def test_in_the_place_of_the_log_or_the_result_of_a_run(stopped, bundle, name, kind):
    result = stopped / "out" / "result.json"
    if name == "results.part.jsonl":
        shutil.copy(result, stopped / "out" / name)
        result.unlink()
    exchange(stopped / "out" / name, kind)
    said = answer(resume, stopped, bundle)
    assert said.startswith("refused: ") and name in said, said


@KINDS
def test_in_the_place_of_a_result_that_is_read(stopped, kind):
    exchange(stopped / "out" / "result.json", kind)
    said = answer(bloodfilm.read_run, stopped / "out")
    assert said.startswith("refused: ") and "result.json" in said, said


@KINDS
@pytest.mark.parametrize("name", ["manifest.json", "detector.onnx", SUMS])
def test_in_the_place_of_a_file_of_a_bundle(tmp_path, bundle, name, kind):
    shutil.copytree(bundle, tmp_path / "bundle")
    names = sorted(file.name for file in bundle.iterdir())
    (tmp_path / "bundle" / SUMS).write_text(sums_of(bundle, names))
    exchange(tmp_path / "bundle" / name, kind)
    said = answer(bloodfilm.load_model, tmp_path / "bundle")
    assert said.startswith("refused: ") and name in said, said


@KINDS
def test_in_the_place_of_a_list_of_drawings(tmp_path, bundle, kind):
    film(tmp_path / "a.png")
    kind(tmp_path / ".bloodfilm-drawings")
    assert answer(bloodfilm.analyze, tmp_path, bundle) == "read"
