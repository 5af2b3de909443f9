"""Cases of an analysis: from images to index and files, stopped and resumed."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from bloodfilm import analyze as analyze_images
from bloodfilm import analyze_case, read_run
from bloodfilm.cases import assembly
from bloodfilm.core import issue_codes
from bloodfilm.core.errors import ConfigError, OutputError
from bloodfilm.core.progress import Cancellation, CancelledError
from bloodfilm.core.results import RESULT_FILE
from bloodfilm.core.results.case import file_stems
from bloodfilm.workflows.analyze import AnalysisJob, analyze, edge_rule
from fake_bundle import draw, lay_out, save, write_bundle
from following import Recorder

LEAVES = ("lymphocyte", "eosinophil", "basophil", "monocyte")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    place = tmp_path_factory.mktemp("drawn")
    for i, leaf in enumerate(LEAVES):
        objects = lay_out(120.0, 80.0, [(30.0 + 9 * i, 40.0, leaf)])
        save(place / f"{'ab'[i % 2]}" / f"{i}.png", draw(objects, (480, 320)))
    shutil.copy(place / "a" / "0.png", place / "a" / "copy.png")
    (place / "b" / "broken.png").write_bytes(b"no picture")
    return place


@pytest.fixture
def films(drawn, tmp_path, monkeypatch):
    shutil.copytree(drawn, tmp_path / "films")
    monkeypatch.chdir(tmp_path)
    return Path("films")


def go(bundle, out="out", paths=("films",), progress=None, **options):
    job = AnalysisJob(paths=list(paths), out=Path(out), bundle=bundle, report=False, **options)
    return analyze(job, progress)


def index(out="out"):
    with (Path(out) / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_sub_folder_is_a_case_with_an_index_and_a_file(films, bundle):
    summary = go(bundle)
    assert summary.cases == 2 and summary.incomplete
    rows = {row["case"]: row for row in index()}
    assert (rows["a"]["fields"], rows["a"]["counted_fields"], rows["a"]["white_cells"]) == (
        "3",
        "2",
        "2",
    )
    assert (rows["b"]["failed"], rows["b"]["issues"]) == ("1", "failed-fields")
    run = read_run("out")
    assert [case.name for case in run.cases] == ["a", "b"]
    (copy,) = run.cases[0].set_aside
    assert copy.issues[0].code == issue_codes.DUPLICATE_IMAGE
    document = json.loads((Path("out") / rows["a"]["file"]).read_text("utf-8"))
    assert (
        document["format"] == "bloodfilm-case" and document["differential"]["count"]["white"] == 2
    )
    assert {name for cell in document["cells"] for name, _ in cell["views"]} == {
        "films/a/0.png",
        "films/a/2.png",
        "films/a/copy.png",
    }


def test_a_table_with_faults_is_named_and_ends_with_an_incomplete_run(films, bundle):
    rows = "image,patient\nfilms/a/0.png,Ann\nfilms/b/1.png,Bo\nfilms/a/lost.png,Bo\n"
    Path("t.csv").write_text(rows, "utf-8")
    progress = Recorder()
    summary = go(bundle, cases="t.csv", progress=progress)
    assert summary.images == 2 and not summary.failures and summary.incomplete
    told = {i.code for i in progress.issues}
    assert {issue_codes.IMAGE_NOT_FOUND, issue_codes.IMAGE_NOT_LISTED} <= told
    assert [row["case"] for row in index()] == ["Ann", "Bo"]
    assert read_run("out").settings["cases"] == "t.csv"


class StopAt(Cancellation):
    """Stops in a stage."""

    def __init__(self, stage, done):
        super().__init__()
        self.at = stage, done

    def update(self, stage, done, total):
        if stage.endswith(self.at[0]) and done >= self.at[1]:
            self.cancel()


@pytest.mark.parametrize("at", [("fields", 3), ("looking at fields", 1)])
def test_a_stopped_run_resumes_to_the_same_bytes(films, bundle, at):
    go(bundle, "whole")
    with pytest.raises(CancelledError):
        go(bundle, progress=StopAt(*at))
    assert not (Path("out") / RESULT_FILE).exists()
    go(bundle, existing="resume")
    names = [RESULT_FILE, "cells.csv", "cases.csv", "cases/a.json", "cases/b.json"]
    for name in names:
        assert (Path("out") / name).read_bytes() == (Path("whole") / name).read_bytes()
    assert sorted(p.name for p in Path("out").iterdir()) == sorted(
        p.name for p in Path("whole").iterdir()
    )


def test_a_run_is_not_resumed_with_other_cases(films, bundle):
    with pytest.raises(CancelledError):
        go(bundle, progress=StopAt("fields", 2))
    with pytest.raises(OutputError, match="cases was folders, now it is one"):
        go(bundle, cases="one", existing="resume")


def test_overwriting_removes_the_files_of_cases_and_no_others(films, bundle):
    go(bundle)
    Path("out/cases/own.json").write_text("{}")
    Path("out/cases/notes.txt").write_text("mine")
    go(bundle, cases="one", existing="overwrite")
    assert sorted(p.name for p in Path("out/cases").iterdir()) == [
        "films.json",
        "notes.txt",
        "own.json",
    ]


def test_an_image_in_two_cases_is_named_in_both(films, bundle):
    shutil.copy(films / "a" / "0.png", films / "b" / "same.png")
    progress = Recorder()
    go(bundle, progress=progress)
    said = [i.message for i in progress.issues if i.code == issue_codes.SHARED_IMAGE]
    assert said == [
        "case a: 1 of its images also in b: whose are they?",
        "case b: 1 of its images also in a: whose are they?",
    ]
    shared = [
        [i for i in c.issues if i.code == issue_codes.SHARED_IMAGE] for c in read_run("out").cases
    ]
    assert [i.data["cases"] for issues in shared for i in issues] == [["b"], ["a"]]


def test_a_case_in_memory_is_that_of_files(films, bundle):
    case = analyze_case(films, bundle)
    assert case.name == "films" and len(case.fields) == 5 and len(case.failures) == 1
    run = analyze_images(films, bundle, out="out", report=False, cases="one")
    assert run.cases[0].to_json() == case.to_json()
    assert [c.label for c in case.counted_cells()] == [
        c.label for c in read_run("out").cases[0].counted_cells()
    ]


@pytest.fixture
def reopened(monkeypatch):
    """Paths of the files that cases open again, as they come."""
    paths = []
    read = assembly.open_image
    monkeypatch.setattr(assembly, "open_image", lambda path: paths.append(path) or read(path))
    return paths


def test_no_field_is_decoded_again_to_compare_it(films, bundle, reopened):
    (films / "a" / "copy.png").unlink()  # whose cells would be compared with its original's
    go(bundle, cases="one")
    assert read_run("out").cases[0].placements and not reopened
    analyze_case(films, bundle)
    assert not reopened


def test_a_resumed_run_opens_the_fields_that_it_has_not_analysed_itself(films, bundle, reopened):
    (films / "a" / "copy.png").unlink()
    with pytest.raises(CancelledError):
        go(bundle, cases="one", progress=StopAt("fields", 2))
    go(bundle, cases="one", existing="resume")
    assert len(reopened) == 2


def test_an_edge_rule_is_one_of_three():
    assert edge_rule("whole") == "whole"
    with pytest.raises(ConfigError, match="--edges half: give one of two-sides, whole, all"):
        edge_rule("half")


def test_file_names_are_distinct_without_regard_to_case():
    assert file_stems(["A", "a", "a-2", "ü 1"]) == ["A", "a-2", "a-2-2", "ü_1"]
