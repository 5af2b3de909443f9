"""A user's own tree, attributes and object types: trained, exported, analysed and evaluated."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.core import (
    LLD_SCHEMA,
    Attribute,
    Cell,
    Dataset,
    Field,
    Node,
    Schema,
    Taxonomy,
)
from bloodfilm.core.errors import ConfigError
from bloodfilm.formats import save_dataset
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.training import loop
from bloodfilm.training.checkpoint import load_checkpoint, save_checkpoint
from bloodfilm.training.config import DataSection, parse_config
from bloodfilm.training.data.canonical_fields import field_targets
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.vocabulary import (
    DEFAULT_OBJECT_TYPES,
    DEFAULT_VOCABULARY,
    Vocabulary,
    merge_taxonomies,
    read_vocabulary,
)
from tiny import a_field, config, to_toml

TREE = Taxonomy(
    (
        Node("object"),
        Node("leucocyte", "object"),
        Node("lymphoid cell", "leucocyte"),
        Node("plasma cell", "lymphoid cell"),
        Node("small lymphocyte", "lymphoid cell"),
        Node("monocyte", "leucocyte"),
        Node("smudge cell", "object"),
        Node("erythrocyte", "object"),
    )
)
SCHEMA = Schema(
    "eight", (*LLD_SCHEMA.attributes, Attribute("perinuclear_halo", ("absent", "present")))
)
LABELS = {
    "lymphocyte": "plasma cell",
    "monocyte": "monocyte",
    "basophil": "small lymphocyte",
    "red cell": "erythrocyte",
}
TYPES = ["leucocyte", "erythrocyte", "smudge cell"]
OWN = {
    "schemas": ["data"],
    "object_types": TYPES,
    "classified": "leucocyte",
    "ruler": "erythrocyte",
}


def own_field(path: Path, number: int, split: str):
    """A drawn field in the words of `TREE`; one of its red cells is called a smudge cell."""
    item = a_field(path, number, split)
    cells = []
    for i, cell in enumerate(item.cells):
        label = LABELS[str(cell.label)]
        values = dict(cell.attributes)
        if i < 2:
            values["perinuclear_halo"] = ("absent", "present")[label == "plasma cell"]
        cells.append(replace(cell, label="smudge cell" if i == 2 else label, attributes=values))
    return item.with_cells(tuple(cells))


def write_own_set(root: Path) -> None:
    root.mkdir(parents=True)
    fields = [own_field(root / f"t{i}.png", i, "train") for i in range(3)]
    fields += [own_field(root / f"v{i}.png", i + 1, "val") for i in range(3)]
    whole = Dataset("own", tuple(fields), TREE, SCHEMA, licence="CC0-1.0")
    save_dataset(whole, root, "bloodfilm")


def succeed(*words: object) -> str:
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_an_own_tree_trains_exports_analyses_and_evaluates(tmp_path: Path) -> None:
    data, runs = tmp_path / "data", tmp_path / "runs"
    write_own_set(data / "discs")
    runs.mkdir()
    some = {"epochs": 2, "samples": 48, "batch": 8, "lr": 5e-3, "ema": 0.5, "validate_every": 2}
    for task, optim in (("detector", some), ("classifier", {"epochs": 2}), ("sparse", some)):
        more = {"sparse": {"attributes": 0.5, "begin": 0.5}} if task == "sparse" else {}
        (runs / f"{task}.toml").write_text(to_toml(config(task, data=OWN, optim=optim, **more)))
        words = ("--data", data, "--out", runs / task, "--device", "cpu")
        succeed("train", runs / f"{task}.toml", *words)
    record = json.loads((runs / "detector" / "run.json").read_text())
    words = Vocabulary.from_json(record["vocabulary"])
    assert words.taxonomy == TREE and words.schema == SCHEMA and list(words.object_types) == TYPES
    log = [json.loads(line) for line in (runs / "detector" / "log.jsonl").read_text().splitlines()]
    assert {"leucocyte_ap", "erythrocyte_ap", "smudge_cell_ap"} <= set(log[-1]["validation"])
    log = [json.loads(x) for x in (runs / "classifier" / "log.jsonl").read_text().splitlines()]
    assert "f1_perinuclear_halo" in log[-1]["validation"]

    # So little training finds nothing or something, by the processor; so let it find everywhere.
    best = load_checkpoint(runs / "detector" / loop.BEST)
    best["model"]["kind_head.bias"] += 6
    save_checkpoint(runs / "detector" / loop.BEST, best)
    bundle = tmp_path / "bundle"
    succeed("export", runs / "detector", runs / "classifier", "--data", data, "--out", bundle)
    manifest = load_bundle(bundle).manifest
    assert manifest.taxonomy == TREE and manifest.attributes == SCHEMA
    assert list(manifest.object_types) == TYPES and manifest.roles.classified == "leucocyte"
    assert set(manifest.leaves) == {"plasma cell", "small lymphocyte", "monocyte"}
    assert "perinuclear_halo" not in manifest.untrained.attributes

    out = tmp_path / "results"
    words = ("--bundle", bundle, "--min-score", 0.05, "--all-cells", "--um-per-px", 0.25)
    succeed("analyze", data / "discs", "--out", out, *words)
    result = json.loads((out / "result.json").read_text())
    cells = [cell for field in result["fields"] for cell in field["cells"]]
    assert cells and {c["object_type"] for c in cells} <= set(TYPES)
    named = [c for c in cells if c["object_type"] == "leucocyte"]
    assert {c["label"] for c in named} <= set(TREE.names)
    assert all("perinuclear_halo" in c["attributes"] for c in named)

    scores = tmp_path / "scores.json"
    succeed(
        "evaluate", data / "discs", "--bundle", bundle, "--split", "val", "--bootstrap", 0,
        "--level", ",".join(TYPES), "--json", scores,
    )  # fmt: skip
    found = json.loads(scores.read_text())
    assert set(found["detection"]["scores"]["per_class"]) == set(TYPES)
    succeed(
        "evaluate", data / "discs", "--bundle", bundle, "--split", "val", "--bootstrap", 0,
        "--cells", "--json", scores,
    )  # fmt: skip


# ---- reading it --------------------------------------------------------------------------------


def section(**more: object) -> DataSection:
    data = {"train": [{"path": "a"}], "validation": [{"path": "b"}], **more}
    return parse_config({"task": "detector", "data": data}, "test").data


def test_defaults_are_what_the_tree_has(tmp_path: Path) -> None:
    words = read_vocabulary(section(), tmp_path, [Dataset("a", ())])
    assert words == DEFAULT_VOCABULARY and words.object_types == DEFAULT_OBJECT_TYPES
    with pytest.raises(ConfigError, match=r"none of the default types .*name those"):
        read_vocabulary(section(), tmp_path, [Dataset("own", (), TREE, SCHEMA)])
    words = read_vocabulary(section(object_types=TYPES), tmp_path, [Dataset("own", (), TREE)])
    assert words.roles.classified == "leucocyte" and words.roles.ruler is None


def test_files_name_tree_and_schema(tmp_path: Path) -> None:
    (tmp_path / "tree.json").write_text(json.dumps(TREE.to_json()))
    (tmp_path / "attributes.json").write_text(json.dumps(SCHEMA.to_json()))
    given = section(**OWN | {"schemas": ["attributes.json", "wbcatt"], "taxonomy": "tree.json"})
    words = read_vocabulary(given, tmp_path, [Dataset("default", ())])
    assert words.taxonomy == TREE and words.schema.names[:8] == SCHEMA.names
    assert Vocabulary.from_json(words.to_json()) == words
    # A label that the tree does not have stands for the deepest node above it that it has.
    default = Dataset("default", ()).taxonomy
    assert words.resolve("monocyte", default) == "monocyte"
    assert words.resolve("neutrophil", default) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"object_types": ["leucocyte", "toad"]}, "'toad' is not in the taxonomy"),
        ({"object_types": ["leucocyte", "monocyte"]}, "'monocyte' lies under 'leucocyte'"),
        ({"classified": "monocyte"}, "data.classified: 'monocyte' is not among"),
        ({"count_as": {"toad": "background"}}, "'toad' is not a class of the taxonomy that lies"),
        ({"count_as": {"monocyte": "background"}}, "'monocyte' is not a class of the taxonomy"),
        ({"count_as": {"object": "nonsense"}}, "'object' = 'nonsense': choose from leucocyte"),
        ({"ruler": "platelet"}, "data.ruler: 'platelet' is not among"),
        ({"schemas": ["nonsense"]}, "no attribute schema 'nonsense'"),
        ({"schemas": ["none.json"]}, "none.json: cannot be read"),
        ({"taxonomy": "none.json"}, "none.json: cannot be read"),
        ({"taxonomy": "bad.json"}, "bad.json: is no taxonomy"),
        ({"taxonomy": "text.json"}, "text.json: line 1, column 1: ill-formed JSON"),
        ({"schemas": ["bad.json"]}, "bad.json: is no attribute schema"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(tmp_path: Path, change: dict, said: str) -> None:
    (tmp_path / "bad.json").write_text('[{"parent": 3}]')
    (tmp_path / "text.json").write_text("rubbish")
    with pytest.raises(ConfigError) as caught:
        read_vocabulary(section(**OWN | change), tmp_path, [Dataset("own", (), TREE, SCHEMA)])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_classes_under_no_type_count_as_what_the_run_says(tmp_path: Path) -> None:
    says = {"smudge cell": "nucleated cell", "stain deposit": "background"}
    dataset = Dataset("default", ())
    words = read_vocabulary(section(count_as=says), tmp_path, [dataset])
    assert Vocabulary.from_json(words.to_json()) == words
    names = ("monocyte", "smudge cell", "stain deposit", "giant platelet")
    cells = tuple(Cell((10.0 * i, 0, 8, 8), name) for i, name in enumerate(names))
    field = SourcedField(Field(tmp_path / "a.png", cells=cells), dataset, 1.0)
    targets = field_targets(field, words)
    assert targets.boxes[:, 0].tolist() == [0, 10] and targets.type_ids.tolist() == [0, 0]
    assert targets.ignore[:, 0].tolist() == [30]
    plain = field_targets(field, DEFAULT_VOCABULARY)
    assert plain.boxes[:, 0].tolist() == [0] and len(plain.ignore) == 3


def test_trees_of_data_sets_are_merged_or_refused() -> None:
    default = DEFAULT_VOCABULARY.taxonomy
    grown = Taxonomy((*default.nodes, Node("plasma cell", "lymphocyte lineage")))
    merged = merge_taxonomies([default, grown])
    assert merged == grown and merge_taxonomies([default, default]) == default
    assert merge_taxonomies([]) == default
    other = Taxonomy((*default.nodes, Node("plasma cell", "monocyte lineage")))
    with pytest.raises(ConfigError, match=r"plasma cell.*data\.taxonomy"):
        merge_taxonomies([grown, other])
    with pytest.raises(ConfigError, match=r"data\.taxonomy"):
        merge_taxonomies([default, Taxonomy((Node("thing"),))])
