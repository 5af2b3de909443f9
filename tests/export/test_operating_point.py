"""The operating point: evidence weighed, and a threshold chosen, over several sites."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bloodfilm.core import Dataset, Region
from bloodfilm.core.errors import BundleError, ConfigError
from bloodfilm.export.operating_point import (
    WIDEST,
    OperatingPointConfig,
    SiteEvidence,
    choose,
    load_operating_point,
    set_operating_point,
)
from bloodfilm.formats import save_dataset
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.fusion import EvidenceLimits, LogisticFusion
from bloodfilm.inference.manifest import Manifest
from bloodfilm.inference.model import Model
from fake_bundle import Disc, box_of, dark, labelled_field, write_bundle

HARD_NEGATIVE = (120, 60, 90)
ANY = {"sites": [{"path": "anywhere"}], "drawn": 0, "drawn_empty": 0}


def config(**changes):
    return OperatingPointConfig.model_validate(ANY | changes)


def site(name, right, wrong=(), complete=0, excused=()):
    """Evidence of (detector, probability, contrast) of true, false and excused detections."""
    rows = np.array([*right, *wrong, *excused], dtype=float)
    return SiteEvidence(
        name,
        len(right),
        complete,
        WIDEST.evidence(rows[:, 0], rows[:, 1], rows[:, 2]),
        np.array([*range(len(right)), *[-1] * (len(wrong) + len(excused))]),
        np.array([*[False] * (len(right) + len(wrong)), *[True] * len(excused)]),
        np.zeros(len(rows), dtype=bool),
    )


def scores(point, one):
    f = point.fusion
    evidence = one.up_to(f.limits.contrast[1]).evidence
    logits = evidence @ [f.detector, f.verification, f.contrast] + f.bias
    return 1 / (1 + np.exp(-logits))


def test_the_evidence_that_tells_cells_apart_gets_weight():
    pale = [(0.5, 0.9, 0.05)] * 20
    lab = site("lab", [(0.5, 0.9, 0.4), (0.4, 0.9, 0.3)] * 10, pale, complete=10)
    point = choose([lab], config())
    assert point.fusion.contrast > 0 and point.false_per_field == 0
    said = scores(point, lab)
    assert (said[:20] >= point.threshold).all() and (said[20:] < point.threshold).all()


KNOWN = [(0.8, 0.99, 0.2)] * 600
"""Cells of a known camera; of a hundredth more, the threshold need not keep any."""
PALE = (0.95, 0.99, 0.06)
"""What contrast must tell from them."""


def with_dark_ones(*false):
    """Dark cells that the detector doubts, and false ones."""
    return site("lab", [*KNOWN, *[(0.5, 0.99, 0.9)] * 6], [PALE, *false], complete=1)


def test_dark_nuclei_count_as_far_as_hardly_more_is_listed():
    lab = with_dark_ones()
    point = choose([lab], config())
    assert point.fusion.limits.contrast == (0.02, 0.5) and point.false_per_field == 0
    assert (scores(point, lab)[:606] >= point.threshold).all()
    usual = scores(point, lab.up_to(0.2))
    assert (usual[600:606] < point.threshold).all()
    assert usual[:600].tolist() == pytest.approx(scores(point, lab)[:600].tolist())


def test_dark_nuclei_count_no_more_where_that_would_list_false_ones():
    lab = with_dark_ones((0.48, 0.99, 0.9))
    point = choose([lab], config())
    assert point.fusion.limits.contrast == (0.02, 0.4) and point.false_per_field == 0
    assert (scores(point, lab)[606:] < point.threshold).all()


def test_other_objects_that_would_be_listed_keep_contrast_limited():
    others = replace(
        site("others", KNOWN, excused=[(0.48, 0.01, 0.9)] * 5, complete=1),
        named_otherwise=np.array([False] * 600 + [True] * 5),
    )
    point = choose([with_dark_ones(), others], config())
    assert point.fusion.limits.contrast == (0.02, 0.4) and point.false_per_field == 0


def test_where_false_cells_are_not_known_contrast_counts_as_before():
    known = site("lab", [(0.8, 0.99, 0.9)] * 50)
    assert choose([known], config()).fusion.limits == EvidenceLimits()


def test_a_site_counts_alike_whatever_its_number_of_cells():
    large = site("large", [(0.9, 1.0, 0.3)] * 500, [(0.3, 1.0, 0.3)] * 50, complete=50)
    small = site("small", [(0.2, 1.0, 0.3)] * 20)
    alone, both = choose([large], config()), choose([large, small], config())
    assert (scores(alone, small) < alone.threshold).all()
    assert (scores(both, small) >= both.threshold).all()


def test_no_site_is_given_up_for_the_mean():
    good = [site(f"good {i}", [(0.9, 1.0, 0.3)] * 100) for i in range(9)]
    poor = site("poor", [(0.9, 1.0, 0.3)] * 90 + [(0.1, 1.0, 0.3)] * 10)
    lax = choose([*good, poor], config(found=0.985, found_everywhere=0.0))
    strict = choose([*good, poor], config(found=0.985, found_everywhere=0.97))
    assert (scores(lax, poor) >= lax.threshold).sum() == 90
    assert (scores(strict, poor) >= strict.threshold).sum() == 100


def test_what_is_excused_is_not_false():
    right, wrong = [(0.6, 1.0, 0.3)] * 10, [(0.9, 1.0, 0.3)] * 10
    assert choose([site("a", right, wrong, complete=5)], config()).false_per_field == 2
    assert choose([site("a", right, excused=wrong, complete=5)], config()).false_per_field == 0


def test_a_second_detection_of_a_cell_is_false():
    twice = SiteEvidence(
        "a", 1, 1, np.array([[2.0, 0, 0], [1.0, 0, 0]]), np.array([0, 0]), *np.zeros((2, 2), bool)
    )
    right, wrong = twice.outcome(np.array([0.9, 0.8]))
    assert right.tolist() == [0.9] and wrong.tolist() == [0.8]


def test_a_site_where_nothing_is_found_is_named():
    blind = SiteEvidence(
        "dark room", 3, 0, np.zeros((0, 3)), np.zeros(0, int), *np.zeros((2, 0), bool)
    )
    with pytest.raises(ConfigError, match="dark room: none of its 3 cells"):
        choose([blind], config())


def test_the_limit_of_novelty_holds_on_every_site():
    low, high = np.linspace(0, 1, 101), np.linspace(1, 2, 101)
    sites = [
        replace(site(name, [(0.9, 1.0, 0.3)] * 5), red_cell_novelty=seen)
        for name, seen in (("a", low), ("b", high), ("few fields", np.array([9.0])))
    ]
    assert choose(sites, config()).red_cell_novelty == pytest.approx(1.95)
    assert choose(sites[2:], config()).red_cell_novelty is None


@pytest.mark.parametrize("fields", [3, 12])
def test_the_limit_of_novelty_is_measured_on_the_sites(tmp_path, fields):
    # To this classifier, novelty is how green a crop's middle is, white balanced.
    fields = [
        labelled_field(
            tmp_path / f"{i}.png", Disc(80.0, 30.0, 12.0, dark("monocyte")), Disc(30.0, 30.0)
        )
        for i in range(fields)
    ]
    save_dataset(Dataset("lab", tuple(fields)), tmp_path / "dataset.json", "bloodfilm")
    bundle = write_bundle(tmp_path / "bundle", confirms=True)
    point = set_operating_point(bundle, config(sites=[{"path": "dataset.json"}]), tmp_path)
    known = load_bundle(bundle).manifest.classifier.red_cell_novelty
    assert known == point.red_cell_novelty
    if len(fields) < 10:
        assert known is None
    else:
        assert known == pytest.approx(150 / 235 * 245 / 255, abs=0.03)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One site with every cell boxed, and one of which only the monocytes are known."""
    folder = tmp_path_factory.mktemp("data")
    cell, other = Disc(80.0, 30.0, 12.0, dark("monocyte")), Disc(30.0, 30.0, 12.0, HARD_NEGATIVE)
    known = Region.rect(*(float(v) for v in box_of(cell)))
    for name, region in (("lab", None), ("elsewhere", known)):
        (folder / name).mkdir()
        fields = [
            labelled_field(folder / name / f"{i}.png", cell, other, region=region) for i in range(3)
        ]
        save_dataset(Dataset(name, tuple(fields)), folder / name / "dataset.json", "bloodfilm")
    return folder


def test_the_operating_point_is_written_and_used(tmp_path, root):
    bundle = write_bundle(tmp_path / "bundle", confirms=True)
    wanted = config(sites=[{"path": "lab"}, {"path": "elsewhere"}])
    point = set_operating_point(bundle, wanted, root)
    manifest = load_bundle(bundle).manifest
    assert manifest.detector.thresholds["nucleated cell"] == point.threshold
    assert manifest.detector.score_fusion == point.fusion
    sites = manifest.metrics["operating_point"]["sites"]
    assert sites["lab"]["found"] == sites["elsewhere"]["found"] == 1.0
    assert sites["lab"]["fields"] == 3 and sites["lab"]["false_per_field"] == 0
    assert "false_per_field" not in sites["elsewhere"]  # cells beside the boxes are unknown
    assert sites["elsewhere"]["chosen_without_it"]["found"] == 1.0
    with Model(load_bundle(bundle), device="cpu") as model:
        cells = model.analyze(root / "lab" / "0.png").cells
    white = [c for c in cells if c.object_type == "nucleated cell"]
    assert [c.label for c in white] == ["monocyte"]
    assert white[0].confidence >= point.threshold


def test_limits_of_evidence_are_part_of_the_bundle(tmp_path):
    bundle = write_bundle(tmp_path / "bundle")
    fusion = LogisticFusion(1.0, 0.0, 1.0, 0.0, EvidenceLimits(contrast=(0.02, 0.3)))
    load_bundle(bundle).manifest.with_operating_point(fusion, 0.5).write(bundle)
    manifest = load_bundle(bundle).manifest
    assert manifest.detector.score_fusion == fusion
    data = json.loads((bundle / "manifest.json").read_text())
    assert data["detector"]["fusion"]["limits"]["contrast"] == [0.02, 0.3]

    del data["detector"]["fusion"]["limits"]  # as bundles were written before
    older = Manifest.model_validate(data)
    assert older.detector.score_fusion == replace(fusion, limits=EvidenceLimits())
    assert "limits" not in older.to_json()["detector"]["fusion"]


@pytest.mark.parametrize(
    "limits", [{"contrast": [0.5, 0.02]}, {"probability": [0.0, 0.5]}, {"unknown_contrast": 0.7}]
)
def test_limits_in_disorder_are_refused_by_their_name(tmp_path, limits):
    (name,) = limits
    bundle = write_bundle(tmp_path / "bundle")
    fusion = LogisticFusion(1.0, 0.0, 0.0, 0.0)
    data = load_bundle(bundle).manifest.with_operating_point(fusion, 0.5).to_json()
    data["detector"]["fusion"]["limits"] |= limits
    (bundle / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match=rf"detector\.fusion\.limits.*{name}"):
        load_bundle(bundle)


def test_a_lower_threshold_adds_cells_and_changes_none(tmp_path, root):
    bundle = write_bundle(tmp_path / "bundle", confirms=True)
    set_operating_point(bundle, config(sites=[{"path": "lab"}]), root)

    def listed(**how):
        with Model(load_bundle(bundle), device="cpu", **how) as model:
            cells = model.analyze(root / "lab" / "1.png").cells
        return {c.box: c.confidence for c in cells if c.object_type == "nucleated cell"}

    usual, every = listed(), listed(min_score=0.0)
    assert len(every) > len(usual) > 0
    assert {box: every[box] for box in usual} == usual


def test_for_evaluation_all_that_the_detector_finds_is_ranked(tmp_path, root):
    bundle = write_bundle(tmp_path / "bundle", confirms=True)
    strict = LogisticFusion(detector=1.0, verification=3.0, contrast=0.0, bias=-5.0)
    load_bundle(bundle).manifest.with_operating_point(strict, 0.5).write(bundle)
    with Model(load_bundle(bundle), device="cpu", score_floor=0.1) as model:
        cells = model.analyze(root / "lab" / "1.png").cells
        shown = [c for c in cells if c.object_type == "nucleated cell" and model.shows(c)]
    white = [c for c in cells if c.object_type == "nucleated cell"]
    assert len(white) == 2 and len(shown) == 1
    assert min(c.confidence for c in white) < 1e-4  # though the detector gives it more than 0.1


@pytest.mark.slow
def test_rendered_fields_count_as_sites(tmp_path, root):
    bundle = write_bundle(tmp_path / "bundle", confirms=True)
    wanted = config(sites=[{"path": "lab"}], drawn_empty=3, found=0, found_everywhere=0)
    set_operating_point(bundle, wanted, root)
    sites = load_bundle(bundle).manifest.metrics["operating_point"]["sites"]
    assert sites["drawn films without white cells"].keys() == {"fields", "false_per_field"}
    assert sites["drawn films without white cells"]["fields"] == 3


def test_a_site_without_cells_is_refused(tmp_path, root):
    bundle = write_bundle(tmp_path / "bundle")
    (root / "bare").mkdir(exist_ok=True)
    bare = labelled_field(root / "bare" / "0.png", region=None)
    save_dataset(
        Dataset("bare", (bare,)), root / "bare" / "dataset.json", "bloodfilm", overwrite=True
    )
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(ConfigError, match="bare: no boxed nucleated cell"):
        set_operating_point(bundle, config(sites=[{"path": "bare"}]), root)
    assert (bundle / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("found = 0.9", "sites: Field required"),
        ("[[sites]]\npath = 'a'\n[[sites]]\npath = 'a'", "'a' is there twice"),
        ("colour = 1\n[[sites]]\npath = 'a'", "colour: Extra inputs are not permitted"),
        ("found = 2\n[[sites]]\npath = 'a'", "found: "),
        ("not toml", "not a TOML file"),
    ],
)
def test_a_faulty_configuration_is_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "point.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_operating_point(path)
    assert str(error.value).startswith(f"{path}: ") and said in str(error.value)
    assert "\n" not in str(error.value)


def test_the_shipped_configuration_is_whole():
    shipped = load_operating_point(Path("default"))
    assert len(shipped.sites) >= 5 and shipped.drawn > 0 < shipped.drawn_empty
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_operating_point(Path("absent.toml"))


def test_the_manifest_keeps_no_empty_fusion(tmp_path):
    bundle = write_bundle(tmp_path / "bundle")
    load_bundle(bundle).manifest.write(bundle)
    assert "fusion" not in json.loads((bundle / "manifest.json").read_text())["detector"]
