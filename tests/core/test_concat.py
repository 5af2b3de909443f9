"""Data sets joined into one: vocabularies, licences, patients and identities of both survive."""

from pathlib import Path

import pytest

from bloodfilm.core import DEFAULT_TAXONOMY, LLD_SCHEMA, Cell, DataError, Dataset, Field
from bloodfilm.core.attributes import WBCATT_SCHEMA, Attribute, Schema
from bloodfilm.core.cell_table import PHYSICAL
from bloodfilm.core.dataset_codes import UNUSABLE_SHAPE, dataset_issue
from bloodfilm.core.issues import messages
from bloodfilm.core.taxonomy import Node, Taxonomy

BOX = (1.0, 2.0, 30.0, 40.0)


def dataset(name, *cells, patient="6", **more):
    fields = (Field(Path(f"/{name}/a.png"), 100, 100, cells, patient=patient, split="train"),)
    return Dataset(name, fields, source=Path(f"/{name}"), **more)


LLD = dataset("LLD", Cell(BOX, "monoblast", {"cell_size": "medium"}), licence="CC BY-NC-SA 4.0")
WBCATT = dataset(
    "WBCAtt",
    Cell(BOX, "neutrophil", {"cell_size": "big", "granularity": "yes"}),
    schema=WBCATT_SCHEMA,
    licence="CC BY 4.0",
    issues=(dataset_issue(UNUSABLE_SHAPE, "a.png: box 3 left out"),),
)


def test_concat_joins_schemas_and_renames_attributes_that_clash():
    joined = Dataset.concat([LLD, WBCATT])
    assert joined.schema == LLD_SCHEMA.join(WBCATT_SCHEMA)
    assert joined[0].cells[0].attributes == {"cell_size": "medium"}
    assert joined[1].cells[0].attributes == {"wbcatt_cell_size": "big", "granularity": "yes"}
    for field in joined:
        for cell in field.cells:
            joined.schema.codes(cell.attributes)  # raises on a value the schema does not have


def test_concat_keeps_licences_and_problems_of_all():
    joined = Dataset.concat([LLD, WBCATT])
    assert joined.licence == "LLD: CC BY-NC-SA 4.0; WBCAtt: CC BY 4.0"
    assert messages(joined.issues) == ("/WBCAtt: a.png: box 3 left out",)
    assert Dataset.concat([LLD, LLD]).licence == "CC BY-NC-SA 4.0"


def test_concat_tells_patients_of_two_sets_apart_and_not_those_of_one():
    assert [f.patient for f in Dataset.concat([LLD, WBCATT])] == ["LLD/6", "WBCAtt/6"]
    assert [f.patient for f in Dataset.concat([LLD, LLD])] == ["6", "6"]


def test_concat_keeps_physical_cells_of_two_sets_apart():
    one, two = (dataset("LLD", Cell(BOX, None, id=f"{PHYSICAL}7")) for _ in range(2))
    ids = [cell.id for field in Dataset.concat([one, two]) for cell in field.cells]
    assert ids == [f"{PHYSICAL}0-7", f"{PHYSICAL}1-7"]


def test_concat_fields_are_a_sequence():
    joined = Dataset.concat([LLD, WBCATT, LLD])
    assert [f.path.parts[1] for f in joined] == ["LLD", "WBCAtt", "LLD"]
    assert joined.fields[-1] == joined.fields[2] == joined[2]
    assert [f.path for f in joined.fields[1:]] == [joined[1].path, joined[2].path]
    with pytest.raises(IndexError):
        joined.fields[3]


def test_concat_of_one_set_is_that_set_and_of_none_is_refused():
    assert Dataset.concat([LLD]) is LLD
    with pytest.raises(DataError, match="no data set"):
        Dataset.concat([])


def test_taxonomies_join_at_the_deeper_place():
    flat = Taxonomy((Node("cell"), Node("myelocyte", "cell", ("MC",)), Node("smudge", "cell")))
    for joined in (DEFAULT_TAXONOMY.join(flat), flat.join(DEFAULT_TAXONOMY)):
        assert joined.path("myelocyte") == DEFAULT_TAXONOMY.path("myelocyte")
        assert joined.parent("smudge") == "cell" and joined.find("MC") == "myelocyte"
        assert set(joined.names) == {*DEFAULT_TAXONOMY.names, "smudge"}
    assert DEFAULT_TAXONOMY.join(DEFAULT_TAXONOMY) == DEFAULT_TAXONOMY


def test_a_tree_whose_root_lies_within_the_other_joins_there():
    inner = Taxonomy((Node("white cell"), Node("hairy cell", "white cell")))
    for joined in (DEFAULT_TAXONOMY.join(inner), inner.join(DEFAULT_TAXONOMY)):
        assert joined.nodes[0].name == "cell"
        assert joined.path("hairy cell")[:3] == ("cell", "nucleated cell", "white cell")


@pytest.mark.parametrize(
    ("nodes", "what"),
    [
        ((Node("thing"), Node("gadget", "thing")), "roots of trees"),
        ((Node("cell"), Node("monoblast", "cell")), "blast in one tree only"),
        ((Node("cell"), Node("platelet", "cell"), Node("basophil", "platelet")), "lies below"),
    ],
)
def test_trees_that_contradict_each_other_are_refused_by_name(nodes, what):
    with pytest.raises(DataError, match=what):
        DEFAULT_TAXONOMY.join(Taxonomy(nodes))


def test_schemas_share_an_attribute_of_the_same_values_and_refuse_two_of_one_name():
    own = Schema("own", (LLD_SCHEMA["cytoplasm"], Attribute("mood", ("good", "bad"))))
    assert LLD_SCHEMA.join(own).names == (*LLD_SCHEMA.names, "mood")
    assert LLD_SCHEMA.join(LLD_SCHEMA) is LLD_SCHEMA
    other = Schema("own", (Attribute("mood", ("high", "low")), Attribute("own_mood", ("a", "b"))))
    with pytest.raises(DataError, match="'own_mood' has other values"):
        other.join(Schema("own", (Attribute("mood", ("x", "y")),)))
