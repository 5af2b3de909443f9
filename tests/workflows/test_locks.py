"""Two runs in one place exclude each other, and the second is told which process works there."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from bloodfilm.core.errors import ConfigError, OutputError
from bloodfilm.core.locks import LOCK, lock_folder, lock_path
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.synthetic.lld_fixture.builder import FaultPlan
from bloodfilm.synthetic.lld_fixture.cell_faults import write_faulty_dataset
from bloodfilm.workflows.convert import ConversionJob, ReadSettings, convert
from bloodfilm.workflows.export import ExportJob, export
from bloodfilm.workflows.render import FaultyRenderJob, RenderJob, render, render_faulty
from bloodfilm.workflows.repair import RepairJob, repair

HELD = rf"process {os.getpid()} on .* since 2.*; wait"
SUBSET = "H_40X_C2"


@pytest.fixture(scope="module")
def lld(tmp_path_factory):
    root = tmp_path_factory.mktemp("lld")
    write_faulty_dataset(root, FaultPlan([SUBSET], 2, 2, 64, sparse=True), seed=0)
    return root


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def render_few(out):
    render(RenderJob(out=out, fields=1, profiles=("pbc-like",)))


def render_lld(out):
    render_faulty(FaultyRenderJob(out=out, subsets=[SUBSET], patients=2, fields=1, side=64))


@pytest.mark.parametrize("work", [render_few, render_lld], ids=["films", "films --faulty"])
def test_rendering_holds_its_folder(tmp_path, work):
    out = tmp_path / "out"
    out.mkdir()
    with lock_folder(out, "other work"), pytest.raises(OutputError, match=HELD):
        work(out)
    assert names_in(out) == []
    work(out)
    assert LOCK not in names_in(out) and names_in(out)
    with pytest.raises(OutputError, match="is not empty"):
        work(out)


def test_repairing_holds_its_folder(tmp_path, lld):
    out = tmp_path / "out"
    out.mkdir()
    job = RepairJob(root=lld, out=out, pixels=False)
    with lock_folder(out, "other work"), pytest.raises(OutputError, match=HELD):
        repair(job)
    assert names_in(out) == []
    repair(job)
    assert "changes.jsonl" in names_in(out) and LOCK not in names_in(out)


@pytest.mark.parametrize(("format", "name"), [("bloodfilm", "x.json"), ("yolo", "new")])
@pytest.mark.parametrize("overwrite", [False, True])
def test_writing_a_new_data_set_holds_its_place(tmp_path, lld, format, name, overwrite):
    target = tmp_path / name
    reading = ReadSettings(path=lld, format="lld")
    job = ConversionJob(source=reading, target=target, to=format, overwrite=overwrite)
    with lock_path(target, "other work"), pytest.raises(OutputError, match=HELD):
        convert(job)
    assert names_in(tmp_path) == []
    convert(job)
    assert names_in(tmp_path) == [name]


def test_writing_into_a_folder_holds_it(tmp_path, lld):
    reading = ReadSettings(path=lld, format="lld")
    job = ConversionJob(source=reading, target=tmp_path, to="yolo", overwrite=True)
    with (
        lock_folder(tmp_path, "other work"),
        ThreadPoolExecutor(1) as other,
        pytest.raises(OutputError, match=HELD),
    ):
        other.submit(convert, job).result()
    convert(job)
    assert "data.yaml" in names_in(tmp_path) and LOCK not in names_in(tmp_path)


def test_exporting_holds_its_folder(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "out").mkdir()
    runs = tmp_path / "detector", tmp_path / "classifier"
    job = ExportJob(detector=runs[0], classifier=runs[1], out=tmp_path / "out", data=tmp_path)
    with lock_folder(tmp_path / "out", "other work"), pytest.raises(OutputError, match=HELD):
        export(job)
    with pytest.raises(ConfigError, match="detector"):
        export(job)
    assert names_in(tmp_path / "out") == []


def test_two_files_of_one_folder_are_written_at_the_same_time(tmp_path, lld):
    dataset = open_dataset(lld, "lld")
    with lock_path(tmp_path / "a.json", "other work"):
        save_dataset(dataset, tmp_path / "b.json", "bloodfilm")
    assert names_in(tmp_path) == ["b.json"]


def test_a_command_that_holds_its_folder_may_write_a_data_set_there(tmp_path, lld):
    dataset = open_dataset(lld, "lld")
    with lock_folder(tmp_path, "work"):
        save_dataset(dataset, tmp_path, "yolo", overwrite=True)
        assert LOCK in names_in(tmp_path)
        with pytest.raises(OutputError, match=HELD):
            lock_folder(tmp_path, "again").__enter__()
    assert LOCK not in names_in(tmp_path)
