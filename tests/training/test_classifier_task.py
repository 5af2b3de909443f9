"""What the classifier is trained on: crops, groups of leaves, weights of values, prototypes."""

import numpy as np
import pytest
import torch

from bloodfilm.core import DEFAULT_TAXONOMY, LLD_SCHEMA
from bloodfilm.core.errors import ConfigError
from bloodfilm.imaging.colour_normalisation import ColourStandard, normalise
from bloodfilm.training.checkpoint import save_checkpoint
from bloodfilm.training.config import DatasetConfig, parse_config
from bloodfilm.training.data.cell_crops import (
    CellCrops,
    label_groups,
    load_crops,
    plain_crop,
)
from bloodfilm.training.data.crop_views import CropView
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.optimizer import build_optimizer
from bloodfilm.training.tasks.classifier import (
    ClassifierTask,
    predict_crops,
    value_weights,
)
from tiny import COLOURS, VOCABULARY, a_field, config, silent, write_set

CPU = torch.device("cpu")
LEAVES = VOCABULARY.leaves


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "discs", 4, 2)
    return folder


def masks(*labels):
    return np.array([DEFAULT_TAXONOMY.leaf_mask(label, LEAVES) for label in labels])


def learnt(*labels):
    groups = label_groups(masks(*labels))
    return {n for n, s in zip(LEAVES, groups.any(0), strict=True) if s}


def test_leaves_supervised_by_an_inner_label_count_as_learnt():
    assert learnt("monocyte", "basophil", "monocyte") == {"monocyte", "basophil"}
    # LLD's neutrophils: neither band nor segmented ones are named anywhere.
    assert learnt("neutrophil", "monocyte") == {
        "band neutrophil", "segmented neutrophil", "monocyte"
    }  # fmt: skip
    # A set whose leaves are partly named is about those.
    assert learnt("neutrophil", "segmented neutrophil") == {"segmented neutrophil"}
    assert learnt("white cell", "monocyte", "neutrophil") == {
        "monocyte", "band neutrophil", "segmented neutrophil"
    }  # fmt: skip
    assert learnt("white cell") == set(DEFAULT_TAXONOMY.leaves_under("white cell"))


def test_groups_come_larger_first_so_that_the_closer_label_has_the_last_word():
    sizes = label_groups(masks("monocyte", "neutrophil", "lymphocyte lineage")).sum(1)
    assert sizes.tolist() == sorted(sizes, reverse=True) == [3, 2, 1]


def test_crops_are_centred_on_their_cells(root):
    sourced = open_sources([DatasetConfig(path="discs", splits=("train",), repeat=1.5)], root)
    crops = load_crops(sourced, VOCABULARY, silent)
    assert len(crops) == 8 and crops.images.shape == (8, 224, 224, 3)
    assert (crops.weights == 1.5).all()
    assert np.allclose(crops.sizes, 12.0, atol=0.01)
    for image, allowed in zip(crops.images, crops.allowed, strict=True):
        (leaf,) = np.array(LEAVES)[allowed]
        crop = plain_crop(image)
        # White balance makes blue of the discs' ground what BLUES says.
        blue = crop[54:74, 54:74, 2].mean()
        nearest = min(COLOURS, key=lambda n: abs(COLOURS[n][2] * 245 / 225 - blue))
        assert nearest == leaf
        ys, xs = np.nonzero(crop[..., 1] < 100)
        assert abs(xs.mean() + 0.5 - 64) < 1 and abs(ys.mean() + 0.5 - 64) < 1
    sizes = crops.codes[:, LLD_SCHEMA.names.index("cell_size")]
    monocytes = crops.allowed[:, LEAVES.index("monocyte")]
    assert (sizes == np.where(monocytes, 2, 0)).all()
    unmarked = LLD_SCHEMA.names.index("cytoplasm")
    assert (crops.codes[:, unmarked] == -1).all()


def test_no_cell_to_read_is_refused(root):
    def red_only(item):
        cells = tuple(c for c in item.cells if c.label == "red cell")
        return item.with_cells(cells)

    from dataclasses import replace

    sourced = open_sources([DatasetConfig(path="discs")], root)
    empty = [replace(s, field=red_only(s.field)) for s in sourced]
    with pytest.raises(ConfigError, match="no cell with a class"):
        load_crops(empty, VOCABULARY, silent)


def task(root, **sections):
    return ClassifierTask.from_config(
        parse_config(config("classifier", **sections), "test"), root, silent
    )


@pytest.fixture(scope="module")
def tiny_task(root):
    return task(root, optim={"samples": None})


def test_the_record_names_what_was_never_seen(tiny_task):
    record = tiny_task.record()
    assert tiny_task.leaves == LEAVES
    assert set(LEAVES) - set(record["untrained"]["classes"]) == {
        "lymphocyte", "monocyte", "basophil"
    }  # fmt: skip
    # Marked with two values: size. With one: nucleolus. The others never.
    assert set(LLD_SCHEMA.names) - set(record["untrained"]["attributes"]) == {"cell_size"}
    assert record["untrained"]["values"] == {"cell_size": ["medium"]}
    (source,) = record["sources"]["train"]
    assert (source["name"], source["licence"], source["fields"]) == ("discs", "CC0-1.0", 4)


def test_an_epoch_shows_every_cell_once_shuffled(tiny_task):
    first, again, second = (
        tiny_task.samples.keys(0),
        tiny_task.samples.keys(0),
        tiny_task.samples.keys(1),
    )
    assert first == again and sorted(first) == [(0, i) for i in range(8)]
    assert [i for _, i in first] != [i for _, i in second]
    one, same = tiny_task.samples.sample((0, 3)), tiny_task.samples.sample((0, 3))
    assert (one.crop == same.crop).all()
    others = [tiny_task.samples.sample((epoch, 3)) for epoch in range(1, 5)]
    assert any((one.crop != other.crop).any() for other in others)
    assert one.allowed.sum() == 1 and one.nucleated
    assert tiny_task.run.domains.names[one.domain].startswith("discs: ")


def test_repeat_shows_cells_more_or_less_often(root):
    twice = {"train": [{"path": "discs", "splits": ["train"], "repeat": 2.5}]}
    keys = task(root, data=twice, optim={"samples": None}).samples.keys(0)
    counts = np.bincount([i for _, i in keys], minlength=8)
    assert set(counts) <= {2, 3} and 16 < counts.sum() < 24


def test_only_learnt_attributes_have_a_term(tiny_task):
    batch = tiny_task.samples.collate([tiny_task.samples.sample((0, i)) for i in range(6)])
    terms = tiny_task.losses(tiny_task.network.train(), batch, CPU)
    assert set(terms) == {"cell_size", "class"}
    assert all(t.isfinite() for t in terms.values())


def test_prototypes_make_learnt_cells_familiar_and_groups_share_one(root, tmp_path):
    write_set(tmp_path / "discs", 4, 2)
    from bloodfilm.core import Dataset
    from bloodfilm.formats import save_dataset

    folder = tmp_path / "more"
    folder.mkdir()
    fields = tuple(a_field(folder / f"n{i}.png", i, "train", "neutrophil") for i in range(2))
    save_dataset(Dataset("neutrophils", fields), folder, "bloodfilm")
    both = {"train": [{"path": "discs", "splits": ["train"]}, {"path": "more"}]}
    mixed = task(tmp_path, data=both)
    assert not {"band neutrophil", "segmented neutrophil"} & set(
        mixed.record()["untrained"]["classes"]
    )
    model = mixed.network.eval()
    mixed.finish(model, CPU)
    prototypes = model.get_buffer("prototypes")
    band, segmented = (LEAVES.index(f"{n} neutrophil") for n in ("band", "segmented"))
    assert torch.equal(prototypes[band], prototypes[segmented])
    assert prototypes[band].abs().max() < 1e3 < prototypes[LEAVES.index("monoblast")].min()
    description = torch.from_numpy(
        predict_crops(model, mixed.train, CPU, CropView())["description"]
    )
    novelty = model.novelty(description)
    assert novelty.max() < 50 and model.novelty(description + 100).min() > novelty.max()


def test_one_broad_label_alone_can_be_finished(tmp_path):
    from bloodfilm.core import Dataset
    from bloodfilm.formats import save_dataset

    for name in ("train", "val"):
        folder = tmp_path / name
        folder.mkdir()
        fields = tuple(a_field(folder / f"{i}.png", i, name, "white cell") for i in range(2))
        save_dataset(Dataset("white", fields), folder, "bloodfilm")
    data = {"train": [{"path": "train"}], "validation": [{"path": "val"}]}
    broad = task(tmp_path, data=data)
    broad.finish(broad.network.eval(), CPU)
    assert broad.network.get_buffer("spread").isfinite().all()
    assert broad.validate(broad.network, CPU)["class_accuracy"] <= 1


def test_batches_of_one_are_refused(root):
    with pytest.raises(ConfigError, match=r"optim\.batch"):
        task(root, optim={"batch": 1})


def test_rare_values_weigh_more_and_the_mean_cell_weighs_one():
    codes = np.full((10, len(LLD_SCHEMA.attributes)), -1)
    codes[:, 1] = [0] * 8 + [1, 1]
    codes[:5, 0] = [0, 0, 0, 2, 2]
    codes[:3, 2] = 1
    crops = CellCrops(*([np.zeros(10)] * 2), codes, *([np.zeros(10)] * 5))
    weights = value_weights(crops, LLD_SCHEMA, 0.5)
    assert list(weights) == list(LLD_SCHEMA.names[:2])  # two values or more
    common, rare = weights[LLD_SCHEMA.names[1]].tolist()
    assert rare / common == pytest.approx(2.0) and (8 * common + 2 * rare) / 10 == pytest.approx(1)
    assert weights[LLD_SCHEMA.names[0]][1] == 0  # never occurs
    assert value_weights(crops, LLD_SCHEMA, 0.0)[LLD_SCHEMA.names[1]].tolist() == [1, 1]


def test_a_run_can_start_from_another_of_the_same_network(root, tiny_task, tmp_path):
    names = {name for name, _ in tiny_task.network.named_parameters()}
    state = tiny_task.network.state_dict()
    kept = {name: value + 1 if name in names else value for name, value in state.items()}
    save_checkpoint(tmp_path / "new.pt", {"model": kept})
    started = task(root, model={"start": str(tmp_path / "new.pt")}).network.state_dict()
    assert all(torch.equal(started[k], kept[k]) for k in kept)
    save_checkpoint(tmp_path / "other.pt", {"model": {"weight": torch.ones(2)}})
    for name in ("other", "none"):
        with pytest.raises(ConfigError, match=name):
            task(root, model={"start": str(tmp_path / f"{name}.pt")})


# ---- sets of unlike size, and their colours ----------------------------------------------------


NORMALISED = {"normalise": True, "transfer": 0.5, "transfer_lone": 0.5}


@pytest.fixture(scope="module")
def two_sets(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    write_set(folder / "large", 6, 1)
    write_set(folder / "small", 1, 1)
    sets = [{"path": name, "splits": ["train"]} for name in ("large", "small")]
    return task(
        folder,
        data={"train": sets, "validation": [{"path": "large", "splits": ["val"]}]},
        sampling={"sets": 0.0, "labels": 0.0},
        appearance=NORMALISED,
        optim={"samples": 400},
    )


def test_sets_are_drawn_equally_often_whatever_their_size(two_sets):
    keys = two_sets.samples.keys(3)
    assert (
        len(keys) == 400 and keys == two_sets.samples.keys(3) and keys != two_sets.samples.keys(4)
    )
    sources = two_sets.train.sources[[i for _, i in keys]]
    assert (sources == 1).mean() == pytest.approx(0.5, abs=0.1)
    assert len(set(keys)) == 400  # a cell drawn twice is varied anew each time


def test_a_cell_drawn_twice_looks_different_and_a_key_always_the_same(two_sets):
    first, again, other = (two_sets.samples.sample(key).crop for key in ((7, 2), (7, 2), (8, 2)))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_normalised_crops_are_validated_as_they_will_be_read(two_sets):
    record = two_sets.record()
    standard = ColourStandard.from_json(record["colours"])
    image = two_sets.train.images[0]
    assert np.array_equal(two_sets.view.plain(image), normalise(plain_crop(image), standard))
    # Stored in the picture's own colours, not balanced.
    assert np.median(image, axis=(0, 1)).tolist() == [240, 235, 225]


def test_colours_of_both_sets_are_lent(two_sets):
    assert [len(p) for p in two_sets.samples.profiles] == [12, 2]
    rng = np.random.default_rng(0)
    lent = [two_sets.samples._profile(0, rng) is not None for _ in range(200)]
    assert np.mean(lent) == pytest.approx(0.5, abs=0.12)


def test_the_record_of_a_plain_classifier_names_no_colours(tiny_task):
    assert tiny_task.record()["colours"] is None and tiny_task.samples.profiles == []


# ---- what is no cell -----------------------------------------------------------------------------


OBJECTS = DEFAULT_TAXONOMY.leaves_under("other object")


@pytest.fixture(scope="module")
def with_objects(root):
    return task(
        root,
        data={"other": "other object"},
        rendered={"objects": 2, "cells": 6, "validation": 1, "share": 0.4},
        hard_negatives={
            "train": [{"path": "discs", "splits": ["train"]}],
            "validation": [{"path": "discs", "splits": ["val"]}],
            "share": 0.2,
        },
        sampling={"sets": 0.5, "labels": 0.5},
        appearance=NORMALISED,
        optim={"samples": 4000},
    )


def test_objects_are_learnt_beside_the_classes_of_cells(with_objects):
    assert with_objects.leaves == LEAVES + OBJECTS
    untrained = set(with_objects.record()["untrained"]["classes"])
    # Of the rendered cells no class is learnt.
    assert set(with_objects.leaves) - untrained == {"lymphocyte", "monocyte", "basophil", *OBJECTS}
    assert with_objects.record()["vocabulary"]["other"] == "other object"


def test_rendered_crops_are_drawn_as_often_as_configured(with_objects):
    samples = with_objects.samples
    drawn = np.array([i for _, i in samples.keys(0)])
    labelled, every = samples.labelled, len(samples.train)
    assert every == labelled + 2 * len(OBJECTS) + 6
    assert (drawn >= every).mean() == pytest.approx(0.2, abs=0.03)
    assert ((drawn >= labelled) & (drawn < every)).mean() == pytest.approx(0.32, abs=0.03)


def test_whether_a_rendered_object_is_a_cell_is_left_to_its_class(with_objects):
    samples = with_objects.samples
    real, drawn = samples.sample((0, 0)), samples.sample((0, samples.labelled))
    assert real.nucleated is True and drawn.nucleated is None
    batch = samples.collate([real, drawn])
    assert batch.nucleated[0] == 1 and batch.nucleated[1].isnan()
    network = with_objects.network.train()
    losses = with_objects.losses(network, batch, CPU)
    losses["nucleated"].backward()
    assert torch.isfinite(losses["nucleated"])
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_a_hard_negative_is_one_of_the_objects_and_a_cell_is_none(with_objects):
    samples = with_objects.samples
    cells = np.array([leaf not in OBJECTS for leaf in with_objects.leaves])
    for i, nucleated in enumerate(samples.negatives.nucleated):
        sample = samples.sample((0, len(samples.train) + i))
        assert sample.nucleated == nucleated
        assert np.array_equal(sample.allowed, cells if nucleated else ~cells)


def test_it_is_judged_on_rendered_crops_too(with_objects):
    metrics = with_objects.validate(with_objects.network.eval(), CPU)
    assert {"rendered_objects", "rendered_cells"} <= metrics.keys()


def test_without_sampling_rendered_crops_are_refused(root):
    with pytest.raises(ConfigError, match="rendered crops are drawn by sampling"):
        task(
            root,
            data={"other": "other object"},
            rendered={"objects": 2, "cells": 2, "validation": 1},
        )


def test_a_network_goes_on_with_more_classes(root, tiny_task, with_objects, tmp_path):
    import json

    save_checkpoint(tmp_path / "best.pt", {"model": tiny_task.network.state_dict()})
    record = {"version": "0", "config": {}, **tiny_task.record()}
    (tmp_path / "run.json").write_text(json.dumps(record, default=list))
    more = task(
        root,
        model={"start": str(tmp_path / "best.pt")},
        data={"other": "other object", "schemas": ["lld", "wbcatt"]},
        rendered={"objects": 2, "cells": 2, "validation": 1},
        sampling={"sets": 0.5},
    )
    before, after = tiny_task.network.state_dict(), more.network.state_dict()
    assert after["class_head.2.weight"].shape[0] == len(LEAVES) + len(OBJECTS)
    for name in ("class_head.2.weight", "class_head.2.bias"):
        assert torch.equal(after[name][: len(LEAVES)], before[name])
    for name, value in before.items():
        if not name.startswith(("class_head.2.", "prototypes")):
            assert torch.equal(after[name], value)


def test_a_frozen_backbone_learns_nothing_and_keeps_its_statistics(root):
    frozen = task(root, model={"frozen": True}, optim={"samples": 8})
    network = frozen.network
    optimizer = build_optimizer(network, frozen.config.optim)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    samples = frozen.samples
    batch = samples.collate([samples.sample(key) for key in samples.keys(0)[:4]])
    network.train()
    sum(frozen.losses(network, batch, CPU).values()).backward()
    optimizer.step()
    after = network.state_dict()
    same = {k for k, v in before.items() if torch.equal(after[k], v)}
    assert {k for k in before if k.startswith("backbone.")} <= same
    assert "class_head.0.weight" not in same and "norm.running_mean" not in same


def test_a_part_of_the_starting_weights_is_kept(root, tiny_task, tmp_path):
    import json

    with pytest.raises(ConfigError, match=r"model\.keep: needs model\.start"):
        task(root, model={"keep": 0.5})
    save_checkpoint(tmp_path / "best.pt", {"model": tiny_task.network.state_dict()})
    record = {"version": "0", "config": {}, **tiny_task.record()}
    (tmp_path / "run.json").write_text(json.dumps(record, default=list))
    kept = task(root, model={"start": str(tmp_path / "best.pt"), "keep": 0.25})
    before = {k: v.clone() for k, v in kept.network.state_dict().items()}
    with torch.no_grad():
        for parameter in kept.network.parameters():
            parameter.mul_(1.1)
    kept.finish(kept.network.eval(), CPU)
    for name, parameter in kept.network.named_parameters():
        assert torch.allclose(parameter, before[name] * 1.075, rtol=1e-4, atol=1e-6)
