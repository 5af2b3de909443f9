"""The loop: averaged weights, the best epoch, and runs that stop and go on as if they had not."""

import io
import json
import math
import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.files import write_json
from bloodfilm.training import loop
from bloodfilm.training.callbacks import BaseCallback
from bloodfilm.training.checkpoint import load_checkpoint, save_checkpoint
from bloodfilm.training.config import OutlinesSection, parse_config
from bloodfilm.training.distributed import DistributedContext
from bloodfilm.training.ema import ModelEma
from bloodfilm.training.loading import BatchLoader
from bloodfilm.training.optimizer import build_optimizer, learning_rate_factor, set_learning_rate
from bloodfilm.training.precision import has_native_bf16, pick_device, uses_bf16
from bloodfilm.training.tasks import make_task
from tiny import config, silent, write_set

torch.set_num_threads(1)
CPU = torch.device("cpu")


class LineTask:
    """Learns y = 2 x + 1 from numbers, through dropout and batch norm."""

    score_name = "score"
    loss_weights = {"square": 1.0, "far": 0.5}  # noqa: RUF012

    def __init__(self, scores=(), stop_at=None):
        torch.manual_seed(11)
        self.network = nn.Sequential(
            nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1)
        )
        self.register = nn.Parameter(torch.zeros(()))
        self.scores, self.stop_at = list(scores), stop_at
        self.validated, self.finished, self.drawn = 0, 0, []
        self.samples = self

    @property
    def model(self):
        return self.network

    def keys(self, epoch):
        return [(epoch, i) for i in range(10)]

    def sample(self, key):
        self.drawn.append(key)
        if key == self.stop_at:
            raise KeyboardInterrupt
        return torch.rand(1, generator=torch.Generator().manual_seed(key[0] * 100 + key[1]))

    def collate(self, samples):
        return torch.stack(samples)

    def losses(self, model, batch, device):
        away = model(batch) - (2 * batch + 1)
        return {"square": away.square().mean(), "far": away.abs().mean()}

    def validate(self, model, device):
        assert not model.training
        self.validated += 1
        if self.scores:
            return {"score": self.scores[self.validated - 1], "other": 0.5}
        x = torch.linspace(0, 1, 9)[:, None]
        return {"score": -float((model(x) - (2 * x + 1)).square().mean().detach())}

    def finish(self, model, device):
        self.finished += 1
        with torch.no_grad():
            model[3].bias += 100

    def record(self):
        return {"kinds": ["line"]}


def settings(**optim):
    base = {"epochs": 4, "batch": 4, "lr": 0.1, "samples": None}
    return parse_config(config("detector", optim=base | optim), "test")


def run(out, task=None, callbacks=(), **optim):
    task = task or LineTask()
    out.mkdir(exist_ok=True)
    return task, loop.train(task, settings(**optim), out, CPU, callbacks)


class Follow(BaseCallback):
    """Keeps what is reported."""

    def __init__(self):
        self.steps, self.epochs, self.ends = [], [], []

    def on_step(self, info):
        self.steps.append(info)

    def on_epoch_end(self, info):
        self.epochs.append(info)

    def on_train_end(self, out):
        self.ends.append(out)


def weights(out, name=loop.BEST, key="model"):
    return load_checkpoint(out / name)[key]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def log(out):
    return [json.loads(line) for line in (out / loop.LOG).read_text().splitlines()]


def without_times(entries):
    return [{k: v for k, v in e.items() if k != "seconds"} for e in entries]


def test_training_learns_and_leaves_a_record(tmp_path):
    follow = Follow()
    task, best = run(tmp_path, callbacks=[follow], epochs=30, ema=0.9)
    entries = log(tmp_path)
    assert [e["epoch"] for e in entries] == list(range(1, 31))
    assert entries[-1]["step"] == 60  # ten samples are two batches of four a time
    assert set(entries[0]["loss"]) == {"square", "far", "total"}
    total = entries[0]["loss"]
    assert total["total"] == pytest.approx(total["square"] + total["far"])
    assert entries[-1]["loss"]["total"] < entries[0]["loss"]["total"]
    assert best["score"] == max(e["validation"]["score"] for e in entries)
    assert task.validated == 30 and task.finished == 1
    record = json.loads((tmp_path / loop.RECORD).read_text())
    assert record["kinds"] == ["line"] and record["config"]["optim"]["epochs"] == 30
    assert [(s.epoch, s.step, s.steps) for s in follow.steps[:3]] == [
        (1, 1, 2),
        (1, 2, 2),
        (2, 1, 2),
    ]
    assert [e.epoch for e in follow.epochs] == list(range(1, 31)) and follow.ends == [tmp_path]
    assert follow.epochs[-1].losses == follow.steps[-1].losses == entries[-1]["loss"]
    assert [e.epoch for e in follow.epochs if e.improved][-1] == 1 + int(
        np.argmax([e["validation"]["score"] for e in entries])
    )
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("stop_at", [(1, 5), (2, 0), (3, 7)])
def test_a_run_that_stops_goes_on_to_the_same_bits(tmp_path, stop_at):
    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", LineTask(stop_at=stop_at))
    task, _ = run(tmp_path / "broken")
    assert task.drawn[0] == (stop_at[0], 0)  # whole epochs are not repeated
    for name, key in ((loop.BEST, "model"), (loop.LAST, "model"), (loop.LAST, "average")):
        assert same(*(weights(tmp_path / o, name, key) for o in ("whole", "broken")))
    logs = [without_times(log(tmp_path / o)) for o in ("whole", "broken")]
    assert logs[0] == logs[1]


def test_a_stop_while_the_checkpoint_is_written_repeats_that_epoch_once(tmp_path, monkeypatch):
    run(tmp_path / "whole")
    real = loop.save_checkpoint

    def save(path, data):
        if path.name == loop.LAST and data["epoch"] == 2:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(loop, "save_checkpoint", save)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken")
    monkeypatch.undo()
    with (tmp_path / "broken" / loop.LOG).open("a") as file:
        file.write('{"epoch": 2, "st')
    run(tmp_path / "broken")
    logs = [without_times(log(tmp_path / o)) for o in ("whole", "broken")]
    assert logs[0] == logs[1]
    assert same(*(weights(tmp_path / o) for o in ("whole", "broken")))


def test_a_finished_run_is_left_alone(tmp_path):
    _, best = run(tmp_path)
    before = (tmp_path / loop.BEST).read_bytes(), (tmp_path / loop.LOG).read_bytes()
    task, again = run(tmp_path)
    assert (task.drawn, task.finished, again) == ([], 0, best)
    assert before == ((tmp_path / loop.BEST).read_bytes(), (tmp_path / loop.LOG).read_bytes())


def test_a_run_of_another_configuration_is_not_gone_on_with(tmp_path):
    run(tmp_path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match="another configuration"):
        run(tmp_path, lr=0.03)
    assert before == {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    run(tmp_path, workers=None)  # how it is loaded is not what is learnt


def test_settings_of_other_tasks_do_not_hold_up_a_run(tmp_path):
    run(tmp_path)
    kept = load_checkpoint(tmp_path / loop.LAST)
    of_others = OutlinesSection(shift=0.01).model_dump(mode="json")
    stored = {**json.loads(kept["config"]), "outlines": of_others}
    save_checkpoint(tmp_path / loop.LAST, {**kept, "config": json.dumps(stored)})
    run(tmp_path)


def test_a_run_begun_before_a_setting_existed_goes_on(tmp_path):
    run(tmp_path)
    kept = load_checkpoint(tmp_path / loop.LAST)
    stored = json.loads(kept["config"])
    stored["model"].pop("input")  # at its default
    save_checkpoint(tmp_path / loop.LAST, {**kept, "config": json.dumps(stored)})
    run(tmp_path)
    stored["optim"].pop("lr")  # not at its default
    save_checkpoint(tmp_path / loop.LAST, {**kept, "config": json.dumps(stored)})
    with pytest.raises(ConfigError, match="another configuration"):
        run(tmp_path)


def test_the_best_epoch_is_kept_and_finished(tmp_path):
    scores = [0.1, 0.7, 0.4, 0.6]
    task, best = run(tmp_path, LineTask(scores))
    assert best == {"score": 0.7, "other": 0.5}
    kept = load_checkpoint(tmp_path / loop.BEST)
    assert kept["metrics"] == best and kept["finished"] and task.finished == 1
    _, second = run(tmp_path / "short", LineTask([0.1, 0.7, 0.0, 0.0]))
    assert same(kept["model"], weights(tmp_path / "short")) and second == best
    assert float(kept["model"]["3.bias"]) > 90


def test_validation_comes_as_often_as_asked_and_at_the_end(tmp_path):
    run(tmp_path, validate_every=3)
    assert [e["epoch"] for e in log(tmp_path) if "validation" in e] == [3, 4]


class NoNumber(LineTask):
    """Its loss is no number from some step on; keeps the weights before it."""

    def __init__(self, after=0):
        super().__init__()
        self.after, self.calls, self.before = after, 0, None

    def losses(self, model, batch, device):
        terms = super().losses(model, batch, device)
        self.calls += 1
        if self.calls > self.after:
            self.before = {k: v.clone() for k, v in model.state_dict().items() if "num" not in k}
            terms["far"] = terms["far"] * math.nan
        return terms


def test_a_loss_that_is_no_number_stops_the_run_before_it_changes_a_weight(tmp_path):
    task = NoNumber(after=1)
    with pytest.raises(ConfigError, match=r"loss is nan at step 2 \(far\); lower optim\.lr"):
        run(tmp_path, task)
    assert not (tmp_path / loop.LAST).exists()
    now = task.network.state_dict()
    assert all(torch.equal(now[k], v) for k, v in task.before.items())
    assert all(v.isfinite().all() for v in now.values())


def test_a_gradient_that_is_no_number_stops_the_run_before_it_changes_a_weight(tmp_path):
    class Steep(LineTask):
        def losses(self, model, batch, device):
            loss = (model(batch).mean() * 0).sqrt()  # zero, with an infinite slope
            return {"square": loss, "far": loss.detach()}

    task = Steep()
    before = {k: v.clone() for k, v in task.network.named_parameters()}
    with pytest.raises(ConfigError, match=r"gradient is nan at step 1; lower optim\.lr"):
        run(tmp_path, task)
    assert all(torch.equal(v, before[k]) for k, v in task.network.named_parameters())


def test_a_score_that_is_never_a_number_still_leaves_weights(tmp_path, caplog):
    task, best = run(tmp_path, LineTask([math.nan] * 4))
    assert math.isnan(best["score"]) and task.finished == 1
    assert load_checkpoint(tmp_path / loop.BEST)["finished"]
    assert [e["validation"]["score"] for e in log(tmp_path)] == [None] * 4  # JSON knows no NaN
    assert len([r for r in caplog.records if "no number" in r.getMessage()]) == 4


def test_a_number_is_better_than_none_and_none_is_never_better(tmp_path):
    _, best = run(tmp_path / "a", LineTask([math.nan, 0.2, math.nan, 0.1]))
    assert best["score"] == 0.2
    with pytest.raises(KeyboardInterrupt):  # also if the run stops between
        run(tmp_path / "b", LineTask([math.nan, 0.2], stop_at=(1, 3)))
    _, best = run(tmp_path / "b", LineTask([0.2, math.nan, 0.1]))
    assert best["score"] == 0.2


def test_accumulated_batches_are_one_step(tmp_path):
    """The gradient of two batches is the mean of theirs, as of one batch twice as large."""

    class Plain(LineTask):
        def __init__(self):
            super().__init__()
            self.network = nn.Linear(1, 1)

        def keys(self, epoch):
            return [(epoch, i) for i in range(8)]

        def validate(self, model, device):
            return {"score": 0.0}

        def finish(self, model, device):
            pass

    torch.manual_seed(0)
    tasks = [Plain(), Plain(), Plain()]
    for other in tasks[1:]:
        other.network.load_state_dict(tasks[0].network.state_dict())
    run(tmp_path / "large", tasks[0], batch=8, epochs=2)
    run(tmp_path / "parts", tasks[1], batch=4, accumulate=2, epochs=2)
    run(tmp_path / "apart", tasks[2], batch=4, epochs=2)
    large, parts, apart = (weights(tmp_path / n, loop.LAST) for n in ("large", "parts", "apart"))
    assert all(torch.allclose(large[k], parts[k], atol=1e-6) for k in large)
    assert not all(torch.allclose(large[k], apart[k], atol=1e-6) for k in large)
    assert [e["step"] for e in log(tmp_path / "parts")] == [1, 2]
    assert [e["step"] for e in log(tmp_path / "apart")] == [2, 4]


def test_a_run_with_accumulated_batches_resumes_to_the_same_bits(tmp_path):
    run(tmp_path / "whole", accumulate=2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", LineTask(stop_at=(2, 3)), accumulate=2)
    run(tmp_path / "broken", accumulate=2)
    assert same(*(weights(tmp_path / o, loop.LAST) for o in ("whole", "broken")))


def test_another_vocabulary_is_not_gone_on_with(tmp_path):
    class Named(LineTask):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def record(self):
            return {"vocabulary": {"taxonomy": [self.name]}}

    run(tmp_path, Named("cell"))
    run(tmp_path, Named("cell"))
    with pytest.raises(ConfigError, match="taxonomy or the schema has changed"):
        run(tmp_path, Named("other cell"))


def test_an_epoch_without_samples_is_refused(tmp_path):
    class Empty(LineTask):
        def keys(self, epoch):
            return []

    with pytest.raises(ConfigError, match="draws nothing"):
        run(tmp_path, Empty())


def test_averaged_weights_follow_slowly_and_faster_at_first():
    model = nn.BatchNorm1d(2)
    ema = ModelEma(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(3.0)
    model.num_batches_tracked.fill_(7)
    ema.update(model, 1)
    average = ema.module
    assert average.weight.tolist() == pytest.approx([1 + 2 * (1 - 2 / 11)] * 2)
    assert int(average.num_batches_tracked) == 7
    assert not average.weight.requires_grad
    with torch.no_grad():
        average.weight.fill_(1.0)
    ema.update(model, 10**6)
    assert average.weight.tolist() == pytest.approx([1.2, 1.2])


def test_the_rate_rises_then_falls_to_a_hundredth():
    rates = [learning_rate_factor(i, 100, 0.1) for i in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0 and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.01, abs=0.002)


def test_biases_do_not_decay_and_the_backbone_learns_more_slowly():
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    optim = settings(backbone_lr=0.25, weight_decay=0.1).optim
    optimizer = build_optimizer(model, optim)
    groups = optimizer.param_groups
    found = {(g["scale"], g["weight_decay"], p.ndim): 1 for g in groups for p in g["params"]}
    assert set(found) == {(0.25, 0.1, 2), (0.25, 0.0, 1), (1.0, 0.1, 2), (1.0, 0.0, 1)}
    set_learning_rate(optimizer, 2.0)
    assert {g["lr"] for g in groups} == {0.5, 2.0}


def test_bf16_is_used_where_it_is_in_hardware(monkeypatch, caplog):
    gpu = torch.device("cuda")

    def supported(including_emulation=True):
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)  # older than Ampere
    assert not has_native_bf16(gpu) and not uses_bf16("auto", gpu) and not caplog.records
    assert uses_bf16("bf16", gpu) and "emulates bf16" in caplog.text
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert uses_bf16("auto", gpu) and not uses_bf16("fp32", gpu)
    assert not has_native_bf16(torch.device("mps"))
    assert isinstance(has_native_bf16(CPU), bool)


# ---- several processes -------------------------------------------------------------------------


def test_processes_share_an_epoch_without_overlap():
    keys = list(range(11))
    shards = [DistributedContext(rank, 3).shard(keys) for rank in range(3)]
    assert {len(s) for s in shards} == {3} and sorted(k for s in shards for k in s) == list(
        range(9)
    )
    assert DistributedContext().shard(keys) is keys
    with pytest.raises(ConfigError, match="rank 3 of 3"):
        DistributedContext(3, 3)


def test_several_processes_need_a_process_group(monkeypatch):
    assert DistributedContext.from_environment() == DistributedContext()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="no process group"):
        DistributedContext.from_environment()


class Numbers:
    """A source of samples that can be sent to other processes; its samples say where they are."""

    def keys(self, epoch):
        return [(epoch, i) for i in range(5)]

    def sample(self, key):
        import cv2

        return (*key, os.getpid(), cv2.getNumThreads())

    def collate(self, samples):
        return samples


@pytest.mark.slow
@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_loading_processes_live_as_long_as_the_run_and_use_one_thread(context):
    source = Numbers()
    loader = BatchLoader(source, 2, workers=2, context=context)
    seen = [list(loader.epoch(source.keys(epoch))) for epoch in range(2)]
    for epoch, batches in enumerate(seen):
        assert [s[:2] for b in batches for s in b] == [(epoch, i) for i in range(4)]
    processes = [{s[2] for b in batches for s in b} for batches in seen]
    assert (
        processes[0] == processes[1] and len(processes[0]) == 2 and os.getpid() not in processes[0]
    )
    assert {s[3] for batches in seen for b in batches for s in b} == {1}


def test_batches_are_whole_and_in_order():
    source = Numbers()
    loader = BatchLoader(source, 2)
    assert [[s[1] for s in b] for b in loader.epoch(source.keys(0))] == [[0, 1], [2, 3]]
    assert [[s[1] for s in b] for b in loader.epoch(source.keys(0)[:1])] == [[0]]


def test_devices():
    assert pick_device("cpu") == CPU
    with pytest.raises(ConfigError, match="not on this machine"):
        pick_device("toaster")


class _Evil:
    def __reduce__(self):
        import os

        return os.mkdir, ("/nonexistent/evil",)


def test_checkpoints_hold_data_only_and_damage_is_named(tmp_path):
    good = tmp_path / "good.pt"
    save_checkpoint(good, {"a": torch.ones(2), "b": [1, "x"]})
    assert load_checkpoint(good)["b"] == [1, "x"]
    data = good.read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.pt").write_text("not a checkpoint at all")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save({"a": _Evil()}, tmp_path / "code.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(_Evil()))
    for name in ("cut", "text", "empty", "code", "pickle"):
        with pytest.raises(ConfigError, match="damaged checkpoint") as caught:
            load_checkpoint(tmp_path / f"{name}.pt")
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="train first"):
        load_checkpoint(tmp_path / "none.pt")


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"a": 1})
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        save_checkpoint(path, {"a": lambda: 1})
    assert load_checkpoint(path) == {"a": 1}
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


@pytest.mark.parametrize("task", ["detector", "classifier", "sparse"])
def test_training_data_travel_to_other_processes_without_the_network(tmp_path, task):
    write_set(tmp_path / "discs", 2, 1)
    made = make_task(parse_config(config(task), "test"), tmp_path, silent)
    held = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            assert not isinstance(value, nn.Module), "a network is sent to loading processes"

    Pickler(held, pickle.HIGHEST_PROTOCOL).dump(made.samples)
    travelled = pickle.loads(held.getvalue())
    keys = made.samples.keys(0)[:2]
    assert list(travelled.keys(0)[:2]) == list(keys)
    here, there = (s.collate([s.sample(k) for k in keys]) for s in (made.samples, travelled))
    images = "crops" if task == "classifier" else "images"
    assert torch.equal(getattr(here, images), getattr(there, images))
    assert torch.equal(here.domain, there.domain) and here.domain.tolist() == [0, 0]
