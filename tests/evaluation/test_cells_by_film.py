"""True cells are named by their film where the bundle can, as in an analysis."""

from dataclasses import replace

import pytest

from bloodfilm.evaluation.crop_evaluation import read_true_cells
from bloodfilm.formats import open_dataset
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.manifest import FilmOffsetSpec
from learnable import film_network, write_film_bundle
from tiny import write_set


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = write_film_bundle(tmp_path_factory.mktemp("bundle"), film_network())
    manifest = load_bundle(folder).manifest
    size = manifest.classifier.film_offset.size
    manifest.with_film_offset(FilmOffsetSpec(size=size, least_cells=6)).write(folder)
    return load_bundle(folder)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset(write_set(tmp_path_factory.mktemp("set"), 8, 0), "bloodfilm")


def probabilities(dataset, bundle, patients):
    fields = [replace(f, patient=p) for f, p in zip(dataset.fields, patients, strict=True)]
    found, failures = read_true_cells(fields, bundle, dataset.taxonomy, device="cpu")
    assert not failures
    return [pair.result.probabilities for pair in found.pairs]


def test_the_cells_of_a_patient_are_a_film(bundle, dataset):
    alone = probabilities(dataset, bundle, "abcdefgh")  # too few cells each
    one = probabilities(dataset, bundle, ["a"] * 8)
    two = probabilities(dataset, bundle, ["a"] * 4 + ["b"] * 4)
    assert one != alone != two != one
    mixed = probabilities(dataset, bundle, ["a", "b"] * 4)
    assert len(mixed) == len(alone) and mixed != two
