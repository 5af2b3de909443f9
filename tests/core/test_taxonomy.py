"""The tree of cells: depth, spellings, what a label stands for."""

import pytest

from bloodfilm.core import DEFAULT_TAXONOMY as TREE
from bloodfilm.core import DataError, Node, Taxonomy
from bloodfilm.core.taxonomy import current_default

LLD = [
    "myeloblast",
    "lymphoblast",
    "neutrophil",
    "atypical lymphocyte",
    "promonocyte",
    "monoblast",
    "lymphocyte",
    "myelocyte",
    "abnormal promyelocyte",
    "monocyte",
    "metamyelocyte",
    "eosinophil",
    "basophil",
]


@pytest.mark.parametrize("name", LLD)
def test_every_class_of_lld_is_a_white_cell(name: str) -> None:
    assert TREE.is_under(name, "white cell")


def test_a_label_stands_for_its_leaves() -> None:
    assert TREE.leaves_under("immature granulocyte") == (
        "promyelocyte",
        "myelocyte",
        "metamyelocyte",
    )
    assert TREE.leaves_under("eosinophil") == ("eosinophil",)
    assert set(TREE.leaves_under("cell")) == set(TREE.leaves)


def test_erythroblasts_are_nucleated_but_no_white_cells() -> None:
    assert TREE.is_under("erythroblast", "nucleated cell")
    assert not TREE.is_under("erythroblast", "white cell")


def test_leaf_mask_follows_the_order_asked_for() -> None:
    assert TREE.leaf_mask("neutrophil", ("eosinophil", "band neutrophil")) == (False, True)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("WBC", "white cell"),
        ("Platelets", "platelet"),
        ("segmented_neutrophil", "segmented neutrophil"),
        ("Abnormal Promyelocyte", "abnormal promyelocyte"),
        ("RBC", "red cell"),
        ("MMY", "metamyelocyte"),
    ],
)
def test_data_sets_spellings_are_understood(spelling: str, name: str) -> None:
    assert TREE.find(spelling) == name


def test_a_strange_spelling_is_nobody() -> None:
    assert TREE.find("giraffe") is None
    with pytest.raises(DataError, match="no class 'giraffe'"):
        TREE.node("giraffe")


def test_common_ancestor() -> None:
    assert TREE.common(["band neutrophil", "segmented neutrophil"]) == "neutrophil"
    assert TREE.common(["band neutrophil", "monocyte"]) == "white cell"
    assert TREE.common(["platelet"]) == "platelet"


def test_json_round_trip() -> None:
    assert Taxonomy.from_json(TREE.to_json()) == TREE


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((Node("a"), Node("a", "a")), "listed twice"),
        ((Node("a"), Node("b", "c")), "not listed before it"),
        ((Node("a"), Node("b")), "only the first node has no parent"),
        ((Node("a", "b"),), "only the first node has no parent"),
    ],
)
def test_a_tree_that_is_none_is_refused(nodes: tuple[Node, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Taxonomy(nodes)


def test_malformed_json_is_one_line() -> None:
    with pytest.raises(DataError) as caught:
        Taxonomy.from_json([{"parent": None}])
    assert "\n" not in str(caught.value)


def test_blasts_are_marked() -> None:
    assert {"myeloblast", "lymphoblast", "monoblast"} <= TREE.blasts
    assert "monocyte" not in TREE.blasts


def test_an_earlier_default_tree_becomes_the_current_one_and_any_other_stays() -> None:
    first = Taxonomy(TREE.nodes[:26])
    assert "smudge cell" not in first
    assert current_default(first) is TREE
    own = Taxonomy((*first.nodes, Node("plasma cell", "lymphocyte lineage")))
    assert current_default(own) is own
    few = Taxonomy(TREE.nodes[:4])
    assert current_default(few) is few


# ---- blasts, which cut across the lineages -------------------------------------------------------

KINDS = ("myeloblast", "abnormal promyelocyte", "monoblast", "promonocyte", "lymphoblast")


def test_a_blast_of_no_lineage_stands_for_every_kind_of_blast() -> None:
    assert "blast" in TREE and "blast" not in TREE.names and "blast" not in TREE.leaves
    assert TREE.leaves_under("blast") == KINDS
    assert TREE.leaf_mask("blast", ("monocyte", "monoblast")) == (False, True)
    assert TREE.blasts == {*KINDS, "blast"}
    assert TREE.find("Blasts") == TREE.find("blast cell") == "blast"


def test_it_is_a_white_cell_of_no_lineage() -> None:
    assert TREE.parent("blast") == "white cell" and TREE.children("blast") == ()
    assert TREE.path("blast") == ("cell", "nucleated cell", "white cell", "blast")
    assert not TREE.is_under("blast", "granulocyte lineage")
    assert [n for n in TREE.names if TREE.is_under(n, "blast")] == [
        n for n in TREE.names if n in KINDS
    ]
    assert TREE.node("blast").blast


def test_a_tree_without_blasts_or_with_a_class_of_that_name_is_left_as_it_is() -> None:
    plain = Taxonomy((Node("cell"), Node("lymphocyte", "cell")))
    assert "blast" not in plain and plain.find("blast") is None and plain.blasts == frozenset()
    with pytest.raises(DataError, match="no class 'blast'"):
        plain.leaves_under("blast")
    own = Taxonomy((Node("cell"), Node("blast", "cell", blast=True), Node("other", "cell")))
    assert own.path("blast") == ("cell", "blast") and own.leaves_under("blast") == ("blast",)
    assert "blast" in own.names
