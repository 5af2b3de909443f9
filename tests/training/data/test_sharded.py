"""An index is trained on shard by shard: nothing is held, all comes up, any place resumes."""

import json
from itertools import chain

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.core import DEFAULT_TAXONOMY, LLD_SCHEMA
from bloodfilm.core.errors import ConfigError
from bloodfilm.formats import open_dataset
from bloodfilm.formats.parquet import index
from bloodfilm.training import loop
from bloodfilm.training.checkpoint import load_checkpoint
from bloodfilm.training.config import DatasetConfig, parse_config
from bloodfilm.training.data.canonical_fields import FieldLoader
from bloodfilm.training.data.cell_crops import CellSampler, load_crops
from bloodfilm.training.data.samplers import KEPT_FIELDS, ShardedSampler
from bloodfilm.training.data.sharded import (
    MIXED_SHARDS,
    EpochKeys,
    EpochOrder,
    FieldHeaders,
    FieldStream,
    repeat_counts,
    shuffled_order,
)
from bloodfilm.training.data.sources import check_split_disjoint, open_sources
from bloodfilm.training.tasks import make_task
from tiny import VOCABULARY, config, silent, to_toml, write_set

pytest.importorskip("pyarrow")

SHARDED = {
    "train": [{"path": "discs.parquet", "splits": ["train"]}],
    "validation": [{"path": "discs", "splits": ["val"]}],
}

LOADER = FieldLoader(VOCABULARY, 0.25)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Ten training fields and two others, as files and as an index of three fields a shard."""
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "discs", 10, 2)
    dataset = open_dataset(folder / "discs")
    header = index.Header.of(dataset)
    index.write_fields(iter(dataset), folder / "discs.parquet", header, rows=3)
    return folder


def streamed(root, **more) -> FieldStream:
    found = open_sources([DatasetConfig(path="discs.parquet", splits=("train",), **more)], root)
    assert isinstance(found, FieldStream)
    return found


def listed(root):
    return open_sources([DatasetConfig(path="discs", splits=("train",))], root)


# ---- order -----------------------------------------------------------------------------------


def test_a_turn_takes_everything_and_opens_few_shards_at_a_time():
    shards = np.repeat(np.arange(40, dtype=np.int32), 25)
    once = np.ones(1000, np.int64)
    order = shuffled_order(shards, once, [1, 2])
    assert sorted(order.tolist()) == list(range(1000))
    for block in np.split(shards[order], 1000 // (25 * MIXED_SHARDS)):
        assert len(set(block.tolist())) == MIXED_SHARDS
        assert (np.diff(block) != 0).mean() > 0.5
    assert np.array_equal(order, shuffled_order(shards, once, [1, 2]))
    assert not np.array_equal(order, shuffled_order(shards, once, [1, 3]))


def test_what_is_repeated_comes_up_as_often_in_every_turn():
    weights = np.array([1.0, 2.0, 0.5] * 400)
    often = repeat_counts(weights, 7)
    assert np.array_equal(often, repeat_counts(weights, 7))
    assert set(often[0::3]) == {1} and set(often[1::3]) == {2}
    assert 150 < often[2::3].sum() < 250
    shards = np.zeros(1200, np.int32)
    assert np.array_equal(np.bincount(shuffled_order(shards, often, [0])), often)


def test_a_stream_goes_on_from_any_place(root):
    stream = streamed(root)
    turns = EpochOrder(stream, 5)
    whole = np.concatenate([stream.order(5, turn) for turn in range(4)])
    assert turns.length == 10
    assert np.array_equal(EpochOrder(stream, 5).window(0, 40), whole)
    for start, count in ((0, 3), (7, 20), (39, 1), (12, 0)):
        assert np.array_equal(
            EpochOrder(stream, 5).window(start, count), whole[start : start + count]
        )
    assert [turns[i] for i in (31, 2, 15, 14)] == whole[[31, 2, 15, 14]].tolist()
    assert len(turns._kept) <= 2


def test_keys_are_made_when_asked_for():
    keys = EpochKeys(4, np.array([9, 7, 8]))
    assert list(keys) == [(4, 9), (4, 7), (4, 8)] and keys[-1] == (4, 8)
    assert list(keys[1:]) == [(4, 7), (4, 8)]


# ---- fields and cells --------------------------------------------------------------------------


def test_a_stream_has_the_fields_of_its_list(root):
    stream, fields = streamed(root, repeat=2.0), listed(root)
    assert len(stream) == 10 and stream[3].field == fields[3].field == stream[-7].field
    assert [s.field for s in stream] == [s.field for s in fields]
    assert stream.repeats.tolist() == [2.0] * 10 and max(stream.shards) == 3
    heads = list(FieldHeaders(stream, fields))
    assert [h.field.path for h in heads] == [s.field.path for s in chain(fields, fields)]
    assert not any(h.field.cells for h in heads[:10])
    patient = fields[4].field.patient
    (one,) = stream.where(lambda field: field.patient == patient)
    assert one.field == fields[4].field
    with pytest.raises(IndexError):
        stream[10]


def test_a_list_beside_an_index_is_streamed_with_it(root):
    sources = [DatasetConfig(path="discs.parquet", splits=("train",)), DatasetConfig(path="discs")]
    both = open_sources(sources, root)
    assert isinstance(both, FieldStream) and len(both) == 22
    assert both[21].field == open_dataset(root / "discs")[11]
    assert set(both.shards[:10]).isdisjoint(both.shards[10:])


def test_leaks_are_refused(root):
    with pytest.raises(ConfigError, match="is in training and in validation"):
        check_split_disjoint(streamed(root), listed(root)[:1])


def test_images_that_are_not_on_disk_are_left_out(root, tmp_path, caplog):
    header = index.Header("gone", DEFAULT_TAXONOMY, LLD_SCHEMA)
    fields = [s.field for s in listed(root)]
    gone = [type(f)(f.path.with_name("gone.png"), split="train") for f in fields[:2]]
    index.write_fields(iter([*fields, *gone]), tmp_path / "a.parquet", header)
    assert len(open_sources([DatasetConfig(path="a.parquet")], tmp_path)) == 10
    assert "2 images" in caplog.text


def test_the_cells_of_a_stream_are_those_of_its_list(root):
    stream = load_crops(streamed(root), VOCABULARY, silent)
    held = load_crops(listed(root), VOCABULARY, silent)
    assert len(stream) == len(held) == 20
    assert np.array_equal(stream.allowed, held.allowed)
    assert np.array_equal(stream.codes, held.codes)
    assert all(np.array_equal(stream.images[i], held.images[i]) for i in (19, 0, 7, 8))
    some = stream.take(np.array([3, 5]))
    assert [np.array_equal(a, b) for a, b in zip(some.images, held.images[[3, 5]], strict=True)]


def test_a_turn_of_cells_takes_each_and_what_stands_beside_them(root):
    stream = streamed(root)
    field_of = np.repeat(np.arange(10), 2)
    order = CellSampler(stream, field_of, np.ones(25)).order(0, 3)
    assert sorted(order.tolist()) == list(range(25))


def test_a_pool_opens_fields_as_they_are_drawn_and_forgets_them(root, monkeypatch):
    opened = []

    class Recording(FieldLoader):
        def load(self, sourced):
            opened.append(sourced.field.path)
            return super().load(sourced)

    monkeypatch.setattr("bloodfilm.training.data.samplers.KEPT_FIELDS", 4)
    monkeypatch.setattr("bloodfilm.training.data.samplers.SPACING", 1)
    stream = streamed(root)
    recording = Recording(VOCABULARY, 0.25)
    pool = ShardedSampler(stream, recording, area=280 * 208, samples=None, seed=1)
    assert pool.samples == 10 and pool.fields_an_image == 1
    opened.clear()
    rng = np.random.default_rng(0)
    for number in range(20):
        pieces = pool.pieces((0, number), rng)
        first = next(pieces).field
        wanted = LOADER.load(stream[pool.epoch_order[number]])
        assert np.array_equal(first.image, wanted.image)
        next(pieces)
    assert len(pool._kept) == 4
    assert len(opened) <= 21  # each of two turns once, and the one after
    assert KEPT_FIELDS > 4


def test_a_field_that_cannot_be_opened_is_passed_over(root, tmp_path, caplog):
    write_set(tmp_path / "discs", 4, 1)
    dataset = open_dataset(tmp_path / "discs")
    index.write(dataset, tmp_path / "discs.parquet")
    dataset[1].path.write_bytes(b"rubbish")
    stream = streamed(tmp_path)
    pool = ShardedSampler(stream, LOADER, area=100, samples=9, seed=0)
    pieces = pool.pieces((0, 0), np.random.default_rng(0))
    for _ in range(12):
        next(pieces)
    assert caplog.text.count("t1.png") == 1
    crops = load_crops(stream, VOCABULARY, silent)
    assert crops.images.nearest(2) == crops.images.nearest(3) == 4
    for item in stream:
        item.field.path.write_bytes(b"rubbish")
    with pytest.raises(ConfigError, match="none of the first fields"):
        ShardedSampler(stream, LOADER, area=100, samples=9, seed=0)


# ---- training ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detector", "classifier"])
def test_training_on_an_index_never_reads_it_whole_and_goes_on(root, tmp_path, monkeypatch, task):
    def never(self):
        raise AssertionError("every field of the index is read")

    monkeypatch.setattr(index.IndexFields, "__iter__", never)
    file = tmp_path / "run.toml"
    file.write_text(to_toml(config(task, data=SHARDED, optim={"epochs": 2})))

    def run(out):
        arguments = ["train", file, "--data", root, "--out", out, "--threads", 1]
        return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    result = run(whole)
    assert result.exit_code == 0, result.output
    record = json.loads((whole / loop.RECORD).read_text())
    assert record["sources"]["train"][0]["fields"] == 10

    real = loop.save_checkpoint

    def stop_after_one(path, data):
        real(path, data)
        if path.name == loop.LAST and data["epoch"] == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", stop_after_one)
    assert run(broken).exit_code == 130
    monkeypatch.setattr(loop, "save_checkpoint", real)
    assert run(broken).exit_code == 0
    a, b = (load_checkpoint(folder / loop.LAST)["model"] for folder in (whole, broken))
    assert all(bool((a[k] == b[k]).all()) for k in a)


def test_epochs_of_a_reader_go_on_where_the_last_ended(root):
    settings = parse_config(config("classifier", data=SHARDED, optim={"samples": 7}), "run")
    task = make_task(settings, root, silent)
    seen = [i for epoch in range(3) for _, i in task.samples.keys(epoch)][:20]
    assert sorted(seen) == list(range(20))
