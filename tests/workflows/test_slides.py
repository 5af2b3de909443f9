"""Slides in a run: stopped at any moment they come to the same bytes; what goes wrong is named."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from bloodfilm.core.errors import ConfigError, DataError, OutputError
from bloodfilm.core.polygons import Region
from bloodfilm.core.progress import Cancellation, CancelledError
from bloodfilm.core.results import AnalysisRun
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.workflows.analyze import AnalysisJob, analyze
from bloodfilm.workflows.slides import TILES, region_of, slide_folders
from fake_bundle import draw, lay_out, save, write_bundle
from fixtures.scanner_files import write_mirax, write_ndpi, write_philips

SIZE, UM = (1400, 1000), 0.25


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    whites = [(60.0 + 50 * i, 50.0 + 40 * (i % 4), "lymphocyte") for i in range(6)]
    discs = lay_out(SIZE[0] * UM, SIZE[1] * UM, whites, step=13.0, keep_away=12.0)
    pixels = draw(discs, SIZE, UM)
    path = tmp_path_factory.mktemp("slide") / "one.tif"
    with tifffile.TiffWriter(path) as file:
        common = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None}
        file.write(pixels, subifds=1, **common)
        file.write(cv2.resize(pixels, None, fx=0.25, fy=0.25), subfiletype=1, **common)
    return path


@pytest.fixture
def slide(drawn, tmp_path, monkeypatch):
    shutil.copy(drawn, tmp_path / "one.tif")
    monkeypatch.chdir(tmp_path)
    return Path("one.tif")


@pytest.fixture
def run(bundle):
    def go(paths, out, progress=None, **options):
        given = {"bundle": bundle, "report": False, "region": "all"} | options
        paths = paths if isinstance(paths, list) else [paths]
        return analyze(AnalysisJob(paths=paths, out=Path(out), **given), progress)

    return go


class StopAfterTiles(Cancellation):
    """Stops a run after some tiles."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def update(self, stage, done, total):
        if stage.startswith("tiles") and done >= self.count:
            self.cancel()


def files(out):
    return {
        str(p.relative_to(out)): p.read_bytes() for p in sorted(Path(out).rglob("*")) if p.is_file()
    }


def test_a_slide_becomes_a_field_with_maps(slide, run):
    summary = run(slide, "out", report=True)
    assert summary.fields == 1
    (result,) = AnalysisRun.read(Path("out"))
    assert len(result.cells) == 6
    assert result.slide is not None
    assert result.slide.zone == "whole"
    folder = Path("out/slides/one")
    assert {p.name for p in folder.iterdir()} == {
        "cells.geojson", "overview.jpg", "zone.geojson", "zone.png",
    }  # fmt: skip
    cells = json.loads((folder / "cells.geojson").read_text())["features"]
    kinds = [f["properties"]["objectType"] for f in cells]
    assert kinds.count("detection") == 6
    assert region_of(str(folder / "zone.geojson")).contains([(700, 500)])[0]
    pictures = sorted(p.name for p in Path("out/report_files").rglob("*.jpg"))
    assert len(pictures) == 7


def test_shapes_for_qupath_are_in_pixels_of_full_resolution(slide, run):
    """Of level 0, whatever level was looked at; those that `data convert` writes, too."""
    run(slide, "out")
    true = np.array([(60 + 50 * i, 50 + 40 * (i % 4)) for i in range(6)]) / UM
    save_dataset(open_dataset("out/result.json"), Path("converted"), "qupath")
    (converted,) = Path("converted").glob("*.geojson")
    for path in (Path("out/slides/one/cells.geojson"), converted):
        found = [
            np.array(feature["geometry"]["coordinates"][0])
            for feature in json.loads(path.read_text())["features"]
            if feature["properties"]["objectType"] == "detection"
        ]
        middles = np.array([(p.min(axis=0) + p.max(axis=0)) / 2 for p in found])
        away = np.hypot(*(middles[:, None] - true[None]).transpose(2, 0, 1))
        assert sorted(away.argmin(axis=1).tolist()) == list(range(6))
        assert away.min(axis=1).max() < 4, path


@pytest.mark.parametrize("tiles", [0, 1, 4])
def test_a_stopped_slide_is_resumed_to_the_same_bytes(slide, run, tiles):
    run(slide, "whole")
    with pytest.raises(CancelledError):
        run(slide, "part", StopAfterTiles(tiles))
    log = Path(f"part/slides/one/{TILES}")
    assert log.exists()
    log.write_bytes(log.read_bytes()[:-20] if tiles else log.read_bytes())  # killed while writing
    run(slide, "part", existing="resume")
    assert files("part") == files("whole")


@pytest.mark.slow
def test_a_killed_slide_is_resumed_to_the_same_bytes(slide, run, bundle):
    run(slide, "whole")
    code = "from bloodfilm.cli.main import main; main()"
    command = [sys.executable, "-c", code, "analyze", str(slide), "--out", "part"]
    command += ["--bundle", str(bundle), "--no-report", "--region", "all", "--threads", "1"]
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL)
    log = Path(f"part/slides/one/{TILES}")
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") > 2):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(slide, "part", existing="resume")
    assert files("part") == files("whole")


def test_a_slide_that_changed_is_not_resumed(slide, run):
    with pytest.raises(CancelledError):
        run(slide, "part", StopAfterTiles(2))
    data = bytearray(slide.read_bytes())
    data += b"0"
    slide.write_bytes(data)
    with pytest.raises(OutputError, match="sha256 differs"):
        run(slide, "part", existing="resume")


def test_a_finished_run_says_so(slide, run):
    run(slide, "out")
    assert run(slide, "out", existing="resume").nothing_to_do


def test_fields_and_slides_in_one_run(slide, run):
    for number, leaf in enumerate(("eosinophil", "monocyte")):
        save(Path(f"{number}.png"), draw(lay_out(120.0, 80.0, [(60.0, 40.0, leaf)]), (480, 320)))
    summary = run(["0.png", slide, "1.png"], "out")
    assert summary.fields == 3
    results = list(AnalysisRun.read(Path("out")))
    assert [r.path for r in results] == ["0.png", "one.tif", "1.png"]
    assert [r.slide is not None for r in results] == [False, True, False]
    (case,) = AnalysisRun.read(Path("out")).cases
    codes = {i.code for p in case.placements for i in p.issues}
    assert "not-compared" in codes
    assert case.other["red cell"] > 300


def test_bad_slides_among_good_ones_are_named_and_the_rest_goes_on(slide, run):
    pytest.importorskip("openslide")
    pytest.importorskip("wsidicom")
    data = slide.read_bytes()
    Path("cut.tif").write_bytes(data[: len(data) // 2])
    Path("cut.svs").write_bytes(data[: len(data) // 2])
    Path("empty.ndpi").write_bytes(b"")
    Path("text.svs").write_text("not a slide " * 1000)
    Path("alone.mrxs").write_bytes(b"\xff\xd8\xff\xe0" + bytes(200))
    Path("scan.dcm").write_bytes(bytes(128) + b"DICM" + bytes(300))
    Path("study").mkdir()
    Path("study/scan.dcm").write_bytes(bytes(128) + b"DICM" + bytes(300))
    with tifffile.TiffFile(slide) as file:
        offset, count = file.pages[0].dataoffsets[6], file.pages[0].databytecounts[6]
    spoiled = bytearray(data)
    spoiled[offset + 20 : offset + count] = bytes(count - 20)
    Path("tile.tif").write_bytes(spoiled)
    bad = ["cut.tif", "cut.svs", "empty.ndpi", "text.svs", "alone.mrxs", "scan.dcm", "study"]
    summary = run([slide, *bad, "tile.tif"], "out")
    assert summary.incomplete
    says = {f.path: f.reason for f in summary.failures}
    assert set(says) == set(bad)
    assert "again from its source" in says["cut.svs"]
    assert "is every file of the slide there" in says["alone.mrxs"]
    assert "no DICOM whole-slide image" in says["scan.dcm"]
    assert "no DICOM whole-slide image" in says["study"]
    for path, reason in says.items():
        assert reason and "\n" not in reason, path
        assert "Traceback" not in reason and "internal" not in reason, path
    good, damaged = AnalysisRun.read(Path("out"))
    assert (good.path, damaged.path) == ("one.tif", "tile.tif")
    assert len(good.cells) == 6
    (area,) = [i for i in damaged.issues if i.code == "area-unreadable"]
    assert area.data["areas"] == [[0, 256, 256, 256]]


@pytest.mark.parametrize("kind", ["mrxs", "ndpi", "philips"])
def test_a_scanners_file_gives_the_cells_of_its_glass(drawn, tmp_path, monkeypatch, run, kind):
    pytest.importorskip("openslide")
    monkeypatch.chdir(tmp_path)
    pixels = tifffile.imread(drawn)[:1000]
    pixels = np.pad(pixels, ((0, 24), (0, 136), (0, 0)), mode="edge")  # of 1024 x 1536 px
    if kind == "mrxs":  # of six photographs one was not taken; each side has as much room again
        path = write_mirax(Path("a.mrxs"), pixels, side=512, missing=[(2, 1)], at=(3, 2))
    elif kind == "ndpi":
        path = write_ndpi(Path("a.ndpi"), pixels, macro=np.full((200, 600, 3), 80, np.uint8))
    else:
        path = write_philips(Path("a.tiff"), pixels)
    run(path, "out")
    (result,) = AnalysisRun.read(Path("out"))
    assert (result.image.width, result.image.height) == (1536, 1024)
    assert result.view.um_per_px_y == pytest.approx(UM, rel=0.1)
    true = np.array([(60 + 50 * i, 50 + 40 * (i % 4)) for i in range(6)]) / UM
    if kind == "mrxs":
        true = true[~((true[:, 0] > 1000) & (true[:, 1] > 490))]
    found = np.array([(x + w / 2, y + h / 2) for x, y, w, h in (c.box for c in result.cells)])
    away = np.hypot(*(found[:, None] - true[None]).transpose(2, 0, 1))
    assert sorted(away.argmin(axis=1).tolist()) == list(range(len(true)))
    assert away.min(axis=1).max() < 4


def test_names_of_slides_do_not_collide(tmp_path):
    named = slide_folders(tmp_path, [Path("a/x.svs"), Path("b/X.ndpi"), Path("c/x.tif")])
    assert [p.name for p in named.values()] == ["x", "X-2", "x-3"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10,20,0,5", "must be positive"),
        ("10,20,nan,5", "must be positive"),
        ("1,2,3", "no such file"),
        ("gone.geojson", "no such file"),
    ],
)
def test_a_region_that_cannot_be_is_one_line(text, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=says):
        region_of(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "FeatureCollection", "features": []}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}',
        '{"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [2, 0]]]}',
        '{"type": "Point", "coordinates": [1, 2]}',
        '["text"]',
        "no json",
        "[" * 3000,
    ],
)
def test_a_geojson_without_area_is_one_line(text, tmp_path):
    path = tmp_path / "r.geojson"
    path.write_text(text)
    with pytest.raises(DataError) as refused:
        region_of(str(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "corner", ['["a", 0]', "[1e308, 0]", "[1e999, 0]", "[true, 0]", "[0]", "7"]
)
def test_a_corner_that_cannot_be_is_one_line(corner, tmp_path):
    path = tmp_path / "r.geojson"
    rings = f"[[[0, 0], {corner}, [9, 9], [0, 0]]]"
    path.write_text(f'{{"type": "Polygon", "coordinates": {rings}}}')
    with pytest.raises(DataError, match=r"r\.geojson: a polygon's corners are wrong \(") as refused:
        region_of(str(path))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("option", [{"region": "0,0,100,100"}, {"fields": 3, "region": None}])
def test_options_of_slides_are_refused_without_a_slide(tmp_path, run, option):
    save(tmp_path / "a.png", draw(lay_out(120.0, 80.0, []), (480, 320)))
    with pytest.raises(ConfigError, match="is for slides, and none of the images is one"):
        run(tmp_path / "a.png", tmp_path / "out", **option)
    assert not (tmp_path / "out").exists()


def test_holes_of_a_geojson_are_left_out(tmp_path):
    ring = [[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]]
    hole = [[40, 40], [60, 40], [60, 60], [40, 60], [40, 40]]
    path = tmp_path / "r.geojson"
    shape = {"type": "MultiPolygon", "coordinates": [[ring, hole]]}
    features = [
        {"type": "Feature", "geometry": shape, "properties": {"objectType": "annotation"}},
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [900, 0], [0, 900], [0, 0]]]},
            "properties": {"objectType": "detection"},
        },
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    region = region_of(str(path))
    assert isinstance(region, Region)
    inside = region.contains(np.array([(20, 20), (50, 50), (200, 200)]))
    assert inside.tolist() == [True, False, False]
