"""The whole way: a data set, photographs of its fields, the command, and what lands on disk."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.core import Dataset, Domain, Region
from bloodfilm.core.boxes import iou
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.imaging.discovery import find_images
from bloodfilm.registration.transfer import Transfer, domain_from_path
from bloodfilm.synthetic import PROFILES, SceneSpec, ViewTransform, render_pair, save_image

FIRST = replace(PROFILES["lld40x-like"], width=330, height=400)
SECOND = replace(PROFILES["lld40x-magenta"], width=330, height=400)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two fields of a patient in two cameras: (folder, truth of the target by its name)."""
    folder = tmp_path_factory.mktemp("drawn")
    fields, truths = [], {}
    for number, placement in ((3, ViewTransform(180.0, (6.0, 0.0))), (5, ViewTransform(12.0))):
        pair = render_pair(
            FIRST, SECOND, spec=SceneSpec(whites=4), placement=placement, seed=number
        )
        source = folder / "first" / f"9_{number}_1000_ALL.png"
        target = folder / "H_40X_C2" / f"9_{number}_{number + 1}_400_ALL.png"
        for path, (image, _) in ((source, pair.first), (target, pair.second)):
            path.parent.mkdir(exist_ok=True)
            save_image(path, image)
        field = replace(pair.first[1].field(source), patient="9", split="train", diagnosis="ALL")
        if number == 5:
            field = replace(field, region=Region.rect(0, 0, 330, 200))
        fields.append(field)
        truths[target.name] = pair.second[1]
    dataset = Dataset("drawn", tuple(fields), licence="CC0-1.0")
    save_dataset(dataset, folder / "set", "bloodfilm")
    return folder, truths


def run(*arguments):
    return CliRunner().invoke(app, ["data", "transfer", *map(str, arguments)])


@pytest.fixture(scope="module")
def done(drawn, tmp_path_factory):
    folder, _ = drawn
    out = tmp_path_factory.mktemp("done")
    pictures = out / "pictures"
    result = run(folder / "set", folder / "H_40X_C2", "--out", out / "set", "--pictures", pictures)
    assert result.exit_code == 0, result.output
    return out, result.output


def test_cells_arrive_where_they_are(drawn, done):
    _, truths = drawn
    carried = open_dataset(done[0] / "set")
    assert len(carried) == 2
    assert carried.licence == "CC0-1.0"
    met = 0
    for field in carried:
        there = {s.item.id: s for s in truths[field.path.name].visible}
        for cell in field.cells:
            if cell.ignore or cell.id not in there or there[cell.id].cut:
                continue
            assert iou([cell.box], [there[cell.id].box])[0, 0] > 0.6
            assert cell.label == there[cell.id].cell.label
            assert cell.attributes == there[cell.id].cell.attributes
            met += 1
    assert met >= 4


def test_what_is_known_of_the_field_comes_along(done):
    first, second = open_dataset(done[0] / "set")
    assert (first.patient, first.split, first.diagnosis) == ("9", "train", "ALL")
    assert first.domain == Domain("H", 40, "C2", 0.562, 0.144)
    assert first.meta["carried_from"] == "9_3_1000_ALL.png"
    assert float(first.meta["transfer_confidence"]) > 0.9
    # The first is shifted, so a part of it was never seen; half of the second was annotated.
    assert 0.5 < first.region.area(330, 400) / (330 * 400) < 0.99
    assert 0.3 < second.region.area(330, 400) / (330 * 400) < 0.6


def test_the_record_and_the_pictures_are_there(done):
    out, said = done
    record = json.loads((out / "set" / "transfer.json").read_text())
    assert (record["targets"], record["aligned"]) == (2, 2)
    pair = record["pairs"][0]
    assert pair["verdict"] == "aligned"
    assert abs(abs(pair["degrees"]) - 180) < 3
    assert pair["cells"]["carried"] + pair["cells"]["clipped"] + pair["cells"]["cut"] > 0
    assert "2 of 2 targets aligned" in said
    pictures = sorted((out / "pictures").glob("*.png"))
    assert pictures[0].name == "9_3_1000_ALL__9_3_4_400_ALL.png"
    assert cv2.imread(str(pictures[0])).std() > 10


def test_targets_find_their_source_by_content_and_strangers_are_refused(drawn, tmp_path):
    folder, _ = drawn
    targets = find_images([folder / "H_40X_C2"])[1:]
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    save_image(tmp_path / "noise.png", noise)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    targets = [*targets, tmp_path / "noise.png", tmp_path / "broken.png"]
    job = Transfer(open_dataset(folder / "set"), targets, None)
    job.measure()
    records = list(job)
    assert records[0].source.name == "9_5_1000_ALL.png"
    assert [r.alignment.aligned for r in records] == [True, False, False]
    assert "broken.png" in records[2].alignment.reason
    assert len(job.dataset) == 1
    assert len(job.dataset.issues) == 2


def test_a_wrong_pair_is_refused_and_nothing_is_carried(drawn, tmp_path):
    folder, _ = drawn
    table = tmp_path / "pairs.csv"
    table.write_text("source,target\n9_3_1000_ALL.png,9_5_6_400_ALL.png\n")
    target = folder / "H_40X_C2" / "9_5_6_400_ALL.png"
    result = run(folder / "set", target, "--out", tmp_path / "out", "--pairs", table, "--json")
    assert result.exit_code == 2
    record = json.loads(result.stdout)
    assert record["aligned"] == 0
    assert record["pairs"][0]["verdict"] == "refused"
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert "transfer.json" in written and "bloodfilm.json" not in written


def test_mistakes_are_told_before_the_work(drawn, tmp_path):
    folder, _ = drawn
    (tmp_path / "transfer.json").write_text("{}")
    target = folder / "H_40X_C2"
    for arguments, what in (
        (("--out", tmp_path), "exists"),
        (("--out", tmp_path / "a", "--to", "tiff"), "choose from"),
        (("--out", tmp_path / "a", "--match", "luck"), "name or content"),
    ):
        result = run(folder / "set", target, *arguments)
        assert result.exit_code == 2
        assert what in result.output
    stranger = tmp_path / "x.png"
    save_image(stranger, np.full((50, 50, 3), 200, np.uint8))
    result = run(folder / "set", stranger, "--out", tmp_path / "a")
    assert result.exit_code == 2
    assert "match by content" in result.output


def test_folders_and_names_say_the_domain(tmp_path):
    assert domain_from_path(tmp_path / "L_100x_C1" / "Images" / "x.png").microscope == "L"
    assert domain_from_path(tmp_path / "4_15_23_400_ALL.png") == Domain(magnification=40)
    assert domain_from_path(tmp_path / "x.png") == Domain()
