"""The loop: averaged weights, the best epoch, and runs that stop and go on as if they had not."""

import json
import math
import pickle

import pytest
import torch
from torch import nn

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.files import write_json
from bloodfilm.training import loop
from bloodfilm.training.checkpoint import load_checkpoint, save_checkpoint
from bloodfilm.training.config import parse_config
from tiny import config

torch.set_num_threads(1)
CPU = torch.device("cpu")


class LineTask:
    """Learns y = 2 x + 1 from numbers, through dropout and batch norm."""

    score_name = "score"

    def __init__(self, scores=(), stop_at=None):
        torch.manual_seed(11)
        self.network = nn.Sequential(
            nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1)
        )
        self.register = nn.Parameter(torch.zeros(()))
        self.scores, self.stop_at = list(scores), stop_at
        self.validated, self.finished, self.drawn = 0, 0, []

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


def run(out, task=None, report=lambda *_: None, **optim):
    task = task or LineTask()
    out.mkdir(exist_ok=True)
    return task, loop.train(task, settings(**optim), out, CPU, report)


def weights(out, name=loop.BEST, key="model"):
    return load_checkpoint(out / name)[key]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def log(out):
    return [json.loads(line) for line in (out / loop.LOG).read_text().splitlines()]


def without_times(entries):
    return [{k: v for k, v in e.items() if k != "seconds"} for e in entries]


def test_training_learns_and_leaves_a_record(tmp_path):
    calls = []
    task, best = run(tmp_path, report=lambda *a: calls.append(a), epochs=30, ema=0.9)
    entries = log(tmp_path)
    assert [e["epoch"] for e in entries] == list(range(1, 31))
    assert entries[-1]["step"] == 60  # ten samples are two batches of four a time
    assert set(entries[0]["loss"]) == {"square", "far", "total"}
    total = entries[0]["loss"]
    assert total["total"] == pytest.approx(total["square"] + total["far"])
    assert entries[-1]["loss"]["total"] < 0.6 * entries[0]["loss"]["total"]
    assert best["score"] == max(e["validation"]["score"] for e in entries)
    assert task.validated == 30 and task.finished == 1
    record = json.loads((tmp_path / loop.RECORD).read_text())
    assert record["kinds"] == ["line"] and record["config"]["optim"]["epochs"] == 30
    assert sum(stage == "validation" for stage, *_ in calls) == 30
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


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    class Broken(LineTask):
        def losses(self, model, batch, device):
            return {"square": model(batch).mean() * math.nan}

    with pytest.raises(ConfigError, match=r"loss is nan at step 1; lower optim\.lr"):
        run(tmp_path, Broken())
    assert not (tmp_path / loop.LAST).exists()


def test_an_epoch_without_samples_is_refused(tmp_path):
    class Empty(LineTask):
        def keys(self, epoch):
            return []

    with pytest.raises(ConfigError, match="draws nothing"):
        run(tmp_path, Empty())


def test_averaged_weights_follow_slowly_and_faster_at_first():
    model, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        model.weight.fill_(3.0)
    model.num_batches_tracked.fill_(7)
    state = loop.TrainingState(model, average, torch.optim.SGD(model.parameters()), step=1)
    loop._follow(state, 0.9)
    assert average.weight.tolist() == pytest.approx([1 + 2 * (1 - 2 / 11)] * 2)
    assert int(average.num_batches_tracked) == 7
    state.step = 10**6
    with torch.no_grad():
        average.weight.fill_(1.0)
    loop._follow(state, 0.9)
    assert average.weight.tolist() == pytest.approx([1.2, 1.2])


def test_the_rate_rises_then_falls_to_a_hundredth():
    rates = [loop._rate(i, 100, settings(warmup=0.1)) for i in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0 and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.01, abs=0.002)


def test_biases_do_not_decay_and_the_backbone_learns_more_slowly():
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    groups = loop._optimiser(model, settings(backbone_lr=0.25, weight_decay=0.1)).param_groups
    found = {(g["scale"], g["weight_decay"], p.ndim): 1 for g in groups for p in g["params"]}
    assert set(found) == {(0.25, 0.1, 2), (0.25, 0.0, 1), (1.0, 0.1, 2), (1.0, 0.0, 1)}


def test_devices():
    assert loop.pick_device("cpu") == CPU
    with pytest.raises(ConfigError, match="not on this machine"):
        loop.pick_device("toaster")


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
