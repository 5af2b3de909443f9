"""Readers that teach another: what they say, what they may have seen, what a run keeps of them."""

import json

import pytest
import torch

from bloodfilm.core.errors import ConfigError
from bloodfilm.training.checkpoint import save_checkpoint
from bloodfilm.training.config import parse_config
from bloodfilm.training.loop import BEST, RECORD
from bloodfilm.training.tasks.reader import ReaderTask
from tiny import config, silent, write_set

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "discs", 4, 2)
    return folder


def task(root, **sections):
    optim = {"samples": None} | sections.pop("optim", {})
    return ReaderTask(parse_config(config("reader", optim=optim, **sections), "test"), root, silent)


def keep(made, folder):
    """Leave a task's network as a finished run would."""
    save_checkpoint(folder / BEST, {"model": made.network.state_dict(), "metrics": {}})
    record = {"config": made.config.model_dump(mode="json"), **made.record()}
    (folder / RECORD).write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made = [task(root, optim={"lr": lr}) for lr in (1e-3, 2e-3)]
    with torch.no_grad():  # two that differ
        for network in (made[1].network.class_head, made[1].network.attribute_heads):
            for weights in network.parameters():
                weights.neg_()
    return [keep(t, folder / str(i)) for i, t in enumerate(made)]


def taught(root, runs, **teachers):
    return task(root, teachers={"runs": [str(r) for r in runs], **teachers})


def test_teachers_say_the_mean_of_their_probabilities(root, runs):
    student = taught(root, runs)
    crops = student.collate([student.sample((0, i)) for i in range(3)])[0]
    classes, attributes = student.teachers.ask(crops)
    alone = [taught(root, [run]).teachers.ask(crops) for run in runs]
    torch.testing.assert_close(classes, (alone[0][0] + alone[1][0]) / 2)
    assert not torch.allclose(alone[0][0], alone[1][0])
    torch.testing.assert_close(attributes[0], (alone[0][1][0] + alone[1][1][0]) / 2)
    for told in (classes, *attributes):
        torch.testing.assert_close(told.sum(1), torch.ones(3))


def test_the_terms_share_one_weight(root, runs):
    plain = task(root)
    batch = plain.collate([plain.sample((0, i)) for i in range(4)])

    def terms(student):
        student.network.load_state_dict(plain.network.state_dict())
        return student.losses(student.network.eval(), batch, CPU)

    alone, both = terms(plain), terms(taught(root, runs, weight=0.25))
    assert set(both) == {"class", "cell_size", "taught_class", "taught_cell_size"}
    for name, term in alone.items():
        torch.testing.assert_close(both[name], 0.75 * term)
    # What a teacher says itself it cannot be taught: the term is its own entropy.
    mirror = taught(root, runs[:1], weight=1.0)
    mirror.network.load_state_dict(mirror.teachers.readers[0].state_dict())
    crops = batch[0]
    said, _ = mirror.teachers.ask(crops)
    term = mirror.losses(mirror.network.eval(), batch, CPU)["taught_class"]
    torch.testing.assert_close(term, -(said * said.log()).sum(1).mean())


def test_teachers_are_not_changed_by_teaching(root, runs):
    student = taught(root, runs)
    before = [p.clone() for t in student.teachers.readers for p in t.state_dict().values()]
    batch = student.collate([student.sample((0, i)) for i in range(4)])
    sum(student.losses(student.network.train(), batch, CPU).values()).backward()
    after = [p for t in student.teachers.readers for p in t.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(p.requires_grad for t in student.teachers.readers for p in t.parameters())


def test_lookalikes_are_not_taught(root, runs):
    others = {"train": [{"path": "discs", "splits": ["train"]}]}
    student = task(root, teachers={"runs": [str(runs[0])]}, lookalikes=others)
    first = len(student.train)
    batch = student.collate([student.sample((0, first + i)) for i in range(4)])
    terms = student.losses(student.network.train(), batch, CPU)
    assert not any(name.startswith("taught_") for name in terms) and terms["nucleated"] > 0


def test_a_run_keeps_what_its_teachers_learnt_from(root, runs):
    (source,) = taught(root, runs).record()["sources"]["teachers"]
    assert (source["name"], source["split"], source["licence"]) == ("discs", "train", "CC0-1.0")


def test_a_teacher_that_saw_the_validation_split_is_refused(root, tmp_path):
    both = {
        "train": [{"path": "discs", "splits": ["val"]}],
        "validation": [{"path": "discs", "splits": ["train"]}],
    }
    peeked = keep(task(root, data=both), tmp_path / "peeked")
    with pytest.raises(ConfigError, match="discs, split val, which this run is validated on"):
        taught(root, [peeked])


def test_teachers_must_be_readers_with_the_same_words(root, runs, tmp_path):
    with pytest.raises(ConfigError, match="nowhere: is no training run"):
        taught(root, [tmp_path / "nowhere"])
    other = keep(task(root, data={"schemas": ["lld", "wbcatt"]}), tmp_path / "other")
    with pytest.raises(ConfigError, match="other: this teacher knows other classes or attributes"):
        taught(root, [other])
    mixed = keep(task(root), tmp_path / "mixed")
    save_checkpoint(mixed / BEST, {"model": {}, "metrics": {}})
    with pytest.raises(ConfigError, match=r"best\.pt: holds other weights"):
        taught(root, [mixed])
