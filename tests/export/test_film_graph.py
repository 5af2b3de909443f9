"""A graph that names cells by their film: what it gives, and that nothing else changes."""

import hashlib
import shutil

import numpy as np
import pytest
import torch

from bloodfilm.core.errors import BundleError
from bloodfilm.core.taxonomy import Node, Taxonomy
from bloodfilm.export.class_graph import ClassRows, with_rows
from bloodfilm.export.film_graph import LEAST_CELLS, add_film_offset, with_film_offset
from bloodfilm.export.onnx_graphs import ClassifierGraph, classifier_onnx
from bloodfilm.export.quantize import quantize_classifier
from bloodfilm.export.recovered import recover_classifier
from bloodfilm.inference.bundle import load_bundle, open_session
from bloodfilm.inference.manifest import FILM_CLASSES, FILM_OFFSET, FILM_RESIDUAL
from fake_bundle import write_bundle
from learnable import film_network, write_film_bundle, write_learnable

NEW = "hairy cell"


@pytest.fixture(scope="module")
def network():
    return film_network()


@pytest.fixture(scope="module")
def bundle(network, tmp_path_factory):
    return load_bundle(write_film_bundle(tmp_path_factory.mktemp("film"), network))


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (5, 128, 128, 3)).astype(np.uint8)


def test_the_graph_gives_what_the_network_gives(bundle, network, crops):
    session = bundle.classifier("cpu")
    with torch.no_grad():
        cells = network(torch.from_numpy(crops).permute(0, 3, 1, 2).float())["description"]
        residual = network.film_residual(cells)
        offset = torch.linspace(-1, 1, cells.shape[1])
        classes = network.film_classes(cells, offset)
    said = session.run([FILM_RESIDUAL], {"crops": crops})[0]
    assert np.allclose(said, residual, atol=1e-3)
    named = session.run([FILM_CLASSES], {"crops": crops, FILM_OFFSET: offset.numpy()})[0]
    assert np.allclose(torch.tensor(named).softmax(1), classes.softmax(1), atol=1e-4)
    other = session.run([FILM_CLASSES], {"crops": crops})[0]
    assert (torch.tensor(other).softmax(1) - classes.softmax(1)).abs().max() > 1e-3


def test_all_other_answers_are_what_they_were(bundle, network, crops):
    plain = classifier_onnx(ClassifierGraph(network), torch.from_numpy(crops[:2]))
    outputs = ["classes", "attributes", "novelty"]
    before = open_session(plain, bundle.path, "cpu", 1).run(outputs, {"crops": crops})
    after = bundle.classifier("cpu").run(outputs, {"crops": crops})
    for one, other in zip(before, after, strict=True):
        assert (one == other).all()


def test_the_manifest_says_so_and_an_old_bundle_says_nothing(bundle, tmp_path):
    spec = bundle.manifest.classifier.film_offset
    assert spec.least_cells == LEAST_CELLS
    plain = load_bundle(write_learnable(tmp_path)).manifest
    assert "film_offset" not in plain.to_json()["classifier"]


def test_a_graph_that_differs_is_refused_and_nothing_is_written(tmp_path, crops):
    folder, network = write_learnable(tmp_path), film_network()
    with torch.no_grad():
        network.class_bias[0] += 1
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(BundleError, match="otherwise than the network"):
        add_film_offset(folder, network, crops)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_graph_of_others_is_refused(network, tmp_path):
    place = write_bundle(tmp_path) / "reader.onnx"
    with pytest.raises(BundleError, match="not exported by this program"):
        with_film_offset(place.read_bytes(), network, place)


def test_a_class_that_is_added_is_known_by_the_film_too(bundle, crops, tmp_path):
    size = bundle.manifest.classifier.film_offset.size
    row = np.random.default_rng(3).normal(0, 0.3, size), 0.2
    leaves = (*bundle.manifest.leaves, NEW)
    graph = with_rows(bundle, leaves, ClassRows({NEW: row}, {}), {NEW: np.zeros(size)})
    folder = tmp_path / "more"
    shutil.copytree(bundle.path, folder)
    data = bundle.manifest.to_json()
    data["taxonomy"] = Taxonomy((*bundle.taxonomy.nodes, Node(NEW, "lymphocyte lineage"))).to_json()
    data["leaves"] = list(leaves)
    data["classifier"]["sha256"] = hashlib.sha256(graph).hexdigest()
    (folder / "reader.onnx").write_bytes(graph)
    type(bundle.manifest).model_validate(data).write(folder)
    taught, offset = load_bundle(folder), np.full(size, 0.1, np.float32)
    feeds = {"crops": crops, FILM_OFFSET: offset}
    old = bundle.classifier("cpu").run([FILM_CLASSES], feeds)[0]
    new = taught.classifier("cpu").run([FILM_CLASSES], feeds)[0]
    assert (new[:, :-1] == old).all()
    assert (new[:, -1] > -100).all()


def test_a_network_that_goes_on_from_the_bundle_is_without_it(bundle, network, crops):
    recovered, _ = recover_classifier(bundle, crops)
    assert recovered.corrected and not recovered.follows_film
    for name in ("class_correction", "class_head.2"):
        ours, theirs = (dict(m.named_modules())[name].weight for m in (recovered, network))
        assert torch.allclose(ours, theirs)


@pytest.mark.slow
def test_it_can_be_added_to_a_graph_in_eight_bits(network, crops, tmp_path):
    plain = classifier_onnx(ClassifierGraph(network), torch.from_numpy(crops[:2]))
    small = quantize_classifier(plain, list(crops))
    graph = with_film_offset(small, network, tmp_path)
    session = open_session(graph, tmp_path, "cpu", 1)
    named = session.run([FILM_CLASSES], {"crops": crops})[0]
    assert named.shape == (len(crops), len(network.class_bias)) and np.isfinite(named).all()
