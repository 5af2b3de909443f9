"""A split over several data sets writes one set in which all of them can be read."""

from pathlib import Path

import pytest
from PIL import Image

from bloodfilm.core import LLD_SCHEMA, Cell, Dataset, Field
from bloodfilm.core.attributes import WBCATT_SCHEMA
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.splits.planning import SplitPlan
from bloodfilm.workflows.split import SplitJob, split

BOX = (2.0, 3.0, 20.0, 18.0)


def write(folder: Path, name, schema, attributes, licence) -> Path:
    fields = []
    for number in range(6):
        path = folder / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (number, 0, 0)).save(path)
        cells = (Cell(BOX, "neutrophil", attributes),)
        fields.append(Field(path, 64, 48, cells, patient=str(number)))
    file = folder / f"{name}.json"
    save_dataset(Dataset(name, tuple(fields), schema=schema, licence=licence), file, "bloodfilm")
    return file


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_split_of_two_sets_keeps_schema_and_licence_of_both(tmp_path, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    one = write(tmp_path, "mine", LLD_SCHEMA, {"cell_size": "medium"}, "CC BY 4.0")
    two = write(tmp_path, "theirs", WBCATT_SCHEMA, {"cell_size": "big"}, "CC0")
    out = tmp_path / f"both.{suffix}"
    job = SplitJob(roots=[one, two], out=tmp_path / "split.json", plan=SplitPlan(), dataset=out)
    assert split(job).written == 12
    both = open_dataset(out)
    assert both.schema == LLD_SCHEMA.join(WBCATT_SCHEMA)
    assert both.licence == "mine: CC BY 4.0; theirs: CC0"
    seen = {tuple(c.attributes.items()) for f in both for c in f.cells}
    assert seen == {(("cell_size", "medium"),), (("wbcatt_cell_size", "big"),)}
    for field in both:
        for cell in field.cells:
            both.schema.codes(cell.attributes)
    assert {f.patient for f in both} == {f"{n}/{i}" for n in ("mine", "theirs") for i in range(6)}
    assert {f.split for f in both} == {"train", "val", "test"}
