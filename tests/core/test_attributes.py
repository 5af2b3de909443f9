"""Attribute schemas: values, slices, joining, and WBCAtt read in LLD's words."""

import pytest

from bloodfilm.core import LLD_SCHEMA, WBCATT_SCHEMA, Attribute, DataError, Schema
from bloodfilm.core.attributes import (
    WBCATT_AS_LLD,
    known_values,
    schema_named,
    wbcatt_to_lld,
)


def test_the_two_schemas_have_seven_and_eleven_attributes() -> None:
    assert len(LLD_SCHEMA.names) == 7
    assert len(WBCATT_SCHEMA.names) == 11


def test_slices_tile_the_output() -> None:
    covered = [i for s in LLD_SCHEMA.slices.values() for i in range(s.start, s.stop)]
    assert covered == list(range(LLD_SCHEMA.width))


def test_joining_renames_only_what_clashes() -> None:
    joined = LLD_SCHEMA.join(WBCATT_SCHEMA)
    assert joined.names[:7] == LLD_SCHEMA.names
    assert "wbcatt_cell_size" in joined
    assert "granularity" in joined
    assert len(joined.names) == 18
    assert schema_named(["lld", "wbcatt"]) == joined


def test_codes_leave_the_unknown_unknown() -> None:
    codes = LLD_SCHEMA.codes({"nucleolus": "prominent"})
    assert codes[LLD_SCHEMA.names.index("nucleolus")] == 1
    assert codes.count(None) == 6


def test_a_wrong_value_is_named() -> None:
    with pytest.raises(DataError, match="no value 'huge'; it is one of small, medium, large"):
        LLD_SCHEMA.codes({"cell_size": "huge"})


def test_every_translation_exists_on_both_sides() -> None:
    for name, (target, mapping) in WBCATT_AS_LLD.items():
        assert set(mapping) == set(WBCATT_SCHEMA[name].values)
        assert set(mapping.values()) <= set(LLD_SCHEMA[target].values)


def test_wbcatt_in_llds_words() -> None:
    said = {"nuclear_cytoplasmic_ratio": "high", "nucleus_shape": "segmented-bilobed"}
    assert wbcatt_to_lld(said) == {"cytoplasm": "scanty", "nuclear_shape": "irregular"}
    assert "nucleolus" not in wbcatt_to_lld({n: WBCATT_SCHEMA[n].values[0] for n in WBCATT_AS_LLD})


def test_known_values_drops_the_unknown_and_the_foreign() -> None:
    assert known_values(LLD_SCHEMA, {"cell_size": None, "granularity": "yes"}) == {}


def test_a_users_schema_round_trips() -> None:
    own = Schema("own", (Attribute("auer_rods", ("absent", "present")),))
    assert Schema.from_json(own.to_json()) == own
    assert own["auer_rods"].title == "auer rods"


@pytest.mark.parametrize("values", [(), ("one",), ("same", "same")])
def test_an_attribute_needs_unlike_values(values: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="at least two distinct values"):
        Attribute("x", values)


def test_names_must_differ() -> None:
    with pytest.raises(DataError, match="share one name"):
        Schema("s", (Attribute("a", ("x", "y")), Attribute("a", ("x", "z"))))


@pytest.mark.parametrize("names", [[], ["nope"]])
def test_unknown_schemas_are_refused(names: list[str]) -> None:
    with pytest.raises(DataError, match="built in: lld, wbcatt"):
        schema_named(names)
