"""Cells named by their film: which films, which groups, what is compared, what is fitted."""

import numpy as np
import pytest
import torch

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.models.classifier import NOT_NAMED, CellClassifierNet
from bloodfilm.training.config import parse_config
from bloodfilm.training.data.cell_crops import CellCrops
from bloodfilm.training.film_offsets import (
    NO_FILM,
    film_answers,
    film_numbers,
    film_offset,
    leaf_groups,
    means_of_leaves,
    of_sets,
)
from bloodfilm.training.tasks.classifier import ClassifierTask, predict_crops
from learnable import FILM_SECTIONS
from tiny import VOCABULARY, config, silent, write_set

CPU = torch.device("cpu")
LEAVES = ("myeloblast", "lymphoblast", "eosinophil", "basophil", "monocyte")


def crops(domains, patients):
    n = len(domains)
    nothing = np.zeros(n, dtype=np.int64)
    return CellCrops(
        np.zeros((n, 1, 1, 3), np.uint8),
        np.zeros((n, 2), bool),
        np.zeros((n, 1), np.int64),
        np.ones(n),
        np.zeros((n, 2)),
        nothing,
        np.array(patients),
        np.array(domains),
    )


def test_a_film_is_one_domain_and_patient():
    films = film_numbers(crops([0, 0, 0, 1, 2, -1], [1, 1, 2, 1, 1, 1]))
    assert films[5] == NO_FILM and films[0] == films[1]
    assert len({films[0], films[2], films[3], films[4]}) == 4


def test_a_set_is_named_by_the_beginning_of_its_domains():
    names = ["A: 40x", "B", "A: 100x"]
    found = of_sets(crops([0, 1, 2, -1], [1, 1, 1, 1]), names, {"A"})
    assert found.tolist() == [True, False, True, False]


def test_a_leaf_is_of_the_first_group_that_holds_it():
    groups = leaf_groups([["blast"], ["granulocyte lineage", "monocyte"]], LEAVES, DEFAULT_TAXONOMY)
    assert groups[0] == groups[1] == 0
    assert leaf_groups([["eosinophil"]], LEAVES, DEFAULT_TAXONOMY).tolist() == [1, 1, 0, 1, 1]


def test_a_new_leaf_is_compared_with_its_relatives():
    prototypes = torch.arange(5.0)[:, None].repeat(1, 2)
    learnt = [True, False, True, True, False]
    means, known = means_of_leaves(
        prototypes, learnt, [True, True, True, True, False], LEAVES, DEFAULT_TAXONOMY
    )
    assert means[1].tolist() == means[0].tolist()  # a lymphoblast as the other blast
    assert known.tolist() == [True, True, True, True, False]
    assert means[2].tolist() == [2.0, 2.0]


@pytest.fixture
def network():
    torch.manual_seed(0)
    net = CellClassifierNet(4, [2], "lcnet_035", width=8).eval()
    net.add_corrections()
    net.add_film_offset()
    rng = torch.Generator().manual_seed(1)
    means = torch.randn(4, net.size, generator=rng)
    learnt, named = torch.tensor([True, True, True, False]), torch.tensor([True, True, True, True])
    net.set_film_means(means, learnt, named, torch.tensor([0, 0, 1, 1]))
    weight = torch.randn(4, net.size, generator=rng) / 30
    net.set_film_correction(weight, torch.randn(4, generator=rng))
    net.set_class_correction(torch.randn(4, net.size, generator=rng) / 30, torch.zeros(4))
    return net, torch.randn(9, net.size, generator=rng)


@torch.no_grad()
def test_the_group_follows_the_film_and_the_class_within_it_the_cell(network):
    net, cells = network
    offset = torch.full((net.size,), 0.2)
    p = net.film_classes(cells, offset).softmax(1)
    moved = cells - offset
    by_film = (net.class_head(moved) + net.film_correction(moved)).softmax(1)
    by_cell = (net.class_head(cells) + net.class_correction(cells)).softmax(1)
    assert torch.allclose(p[:, :2].sum(1), by_film[:, :2].sum(1), atol=1e-5)
    assert torch.allclose(
        p[:, 2] / p[:, 2:].sum(1), by_cell[:, 2] / by_cell[:, 2:].sum(1), atol=1e-5
    )


@torch.no_grad()
def test_what_all_cells_share_leaves_their_groups_as_they_are(network):
    """Cells that lie on the class means, all moved alike, are named as if they were not moved."""
    net, _ = network
    means = net.get_buffer("film_means")[:3]
    head = net.class_head
    head[0].weight.zero_()  # the class head sees no film, so that it is sure of nothing
    cells = means.repeat(5, 1)
    shift = torch.randn(net.size)
    still, moved = film_offset(net, cells), film_offset(net, cells + shift)
    assert torch.allclose(moved - still, shift, atol=1e-4)
    one, other = film_answers(net, cells.numpy()), film_answers(net, (cells + shift).numpy())

    def groups(z):
        p = torch.tensor(z).softmax(1)
        return torch.stack([p[:, :2].sum(1), p[:, 2:].sum(1)])

    assert torch.allclose(groups(one), groups(other), atol=1e-3)


@torch.no_grad()
def test_a_leaf_that_training_does_not_name_is_never_given(network):
    net, cells = network
    named = torch.tensor([True, True, True, False])
    net.set_film_means(net.get_buffer("film_means"), named, named, torch.tensor([0, 0, 1, 1]))
    assert (net.film_classes(cells, cells.mean(0))[:, 3] == NOT_NAMED).all()


# ---- training ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "discs", 4, 2)
    return folder


def task(root, **sections):
    sections = {
        **FILM_SECTIONS,
        **sections,
    }
    return ClassifierTask.from_config(
        parse_config(config("classifier", **sections), "test"), root, silent
    )


def test_training_fits_it_and_a_film_is_named(root):
    fitted = task(root)
    net = fitted.network.eval()
    # As a start that has learnt every leaf would have them.
    means = torch.randn(
        len(VOCABULARY.leaves), net.size, generator=torch.Generator().manual_seed(0)
    )
    net.set_prototypes(means.numpy(), np.ones(net.size, np.float32))
    bias = net.class_bias.clone()
    fitted.finish(net, CPU)
    assert torch.equal(net.class_bias, bias)
    assert net.film_correction.weight.abs().sum() > 0
    named = net.get_buffer("film_named")
    assert {VOCABULARY.leaves[i] for i in torch.nonzero(named).ravel()} == {
        "lymphocyte", "monocyte", "basophil"
    }  # fmt: skip
    said = predict_crops(net, fitted.train, CPU, fitted.view)
    logits = film_answers(net, said["description"])
    right = fitted.train.allowed[np.arange(len(logits)), logits.argmax(1)]
    assert np.isfinite(logits).all() and right.mean() > 0.5


def test_a_set_that_is_not_there_is_named(root):
    fitted = task(root, film_offset={"sets": ["LLD"]})
    with pytest.raises(ConfigError, match=r"film_offset\.sets: no training cell is of LLD"):
        fitted.finish(fitted.network.eval(), CPU)


def test_it_needs_a_correction(root):
    with pytest.raises(ConfigError, match="film_offset: needs correction"):
        task(root, correction={"samples": 0})
