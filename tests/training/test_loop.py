"""A step equals torch's SGD with warm-up, cosine and moving average; stopping and resuming changes nothing."""

import math
import resource

import numpy as np
import pytest
import torch

from fer_stream.errors import ConfigError
from training import augment, data, loop
from training.objective import Samples, Soft, Views
from training.recipe import Architecture, Augmentation, Loss, Optimizer, Recipe

SMALL = Architecture(widths=[8, 8], dropout=0.2)
HOW = Recipe(
    epochs=2, batch=16, sizes={16: 0.0, 24: 0.6}, net=SMALL, optimizer=Optimizer(warmup=3, clip=0.5, average=0.8),
    augmentation=Augmentation(mixup=0.3, cutmix=0.3),
)  # fmt: skip


@pytest.fixture(scope="module")
def samples(csv_file):
    return Samples.of(data.load(csv_file).split(data.TRAINING), HOW.loss)


def advance(trainer, steps):
    for _ in range(steps):
        trainer.advance()


def test_a_step_equals_torch_sgd(samples, monkeypatch):
    monkeypatch.setattr(loop, "batch_loss", lambda net, *_: sum(weights.cos().sum() for weights in net.parameters()))
    trainer, theirs = loop.Trainer(HOW, samples), loop.Trainer(HOW, samples).net
    groups = [[weights for weights in theirs.parameters() if (weights.ndim > 1) == decays] for decays in (True, False)]
    sgd = torch.optim.SGD(
        [{"params": groups[0], "weight_decay": HOW.optimizer.weight_decay}, {"params": groups[1]}],
        lr=1, momentum=HOW.optimizer.momentum, nesterov=True,
    )  # fmt: skip
    average = [weights.detach().clone() for weights in theirs.parameters()]
    for step in range(trainer.total):
        for group in sgd.param_groups:
            cosine = 0.5 + 0.5 * math.cos(math.pi * step / trainer.total)
            group["lr"] = HOW.optimizer.learning_rate * min(1, (step + 1) / 3) * cosine
        sgd.zero_grad()
        sum(weights.cos().sum() for weights in theirs.parameters()).backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), HOW.optimizer.clip)
        sgd.step()
        keep = min(0.8, (1 + step) / (10 + step))
        for kept, new in zip(average, theirs.parameters(), strict=True):
            kept.lerp_(new.detach(), 1 - keep)
        trainer.advance()
    for ours, expected in zip(trainer.net.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours, expected)
    for ours, expected in zip(trainer.average.parameters(), average, strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_a_stop_at_any_step_changes_nothing(samples, tmp_path, stop):
    straight, stopped, again = (loop.Trainer(HOW, samples) for _ in range(3))
    advance(straight, straight.total)
    advance(stopped, stop)
    stopped.save(tmp_path / "state.pt", more="kept")
    assert again.restore(tmp_path / "state.pt")["more"] == "kept"
    assert again.step == stop
    advance(again, again.total - stop)
    for name, value in straight.average.state_dict().items():
        assert torch.equal(again.average.state_dict()[name], value), name
    assert again.mean_loss() == straight.mean_loss()


def test_nets_trained_in_turn_do_not_affect_each_other(samples):
    alone, one, other = (loop.Trainer(HOW, samples) for _ in range(3))
    advance(alone, 5)
    for _ in range(5):
        one.advance()
        other.advance()
    for name, value in alone.net.state_dict().items():
        assert torch.equal(one.net.state_dict()[name], value), name


def test_every_face_is_shown_once_an_epoch(samples, monkeypatch):
    seen = []
    monkeypatch.setattr(loop, "show", lambda faces, pose, size: seen.append(faces) or augment.show(faces, pose, size))
    trainer = loop.Trainer(HOW, samples)
    advance(trainer, trainer.steps)
    shown = torch.cat(seen).flatten(1)
    assert torch.equal(shown.sum(dim=1).sort().values, samples.faces.float().flatten(1).sum(dim=1).sort().values)


def test_a_student_sees_its_teachers_views_with_their_predictions(samples, csv_file, monkeypatch):
    faces = data.load(csv_file).split(data.TRAINING)
    count = len(faces)
    predicted = np.zeros((3, count, 7), np.float16)
    predicted[np.arange(3)[:, None], np.arange(count), np.arange(count) % 4 + np.arange(3)[:, None]] = 1
    soft = Soft(
        faces.rows, predicted, np.full((3, count, 8), 1 / 8, np.float16), Views(3, 1, Augmentation(rotation=40))
    )
    learnt = Samples.of(faces, Loss(smoothing=0, soft=1), soft)
    poses, batches = [], []
    monkeypatch.setattr(loop, "show", lambda faces, pose, size: poses.append(pose) or augment.show(faces, pose, size))
    monkeypatch.setattr(
        loop, "batch_loss", lambda net, batch, *_: batches.append(batch) or net(batch[0])[0].square().mean()
    )
    how = Recipe(epochs=1, batch=16, sizes={16: 0.0}, net=SMALL, augmentation=Augmentation(mixup=0))
    trainer = loop.Trainer(how, learnt)
    advance(trainer, trainer.steps)
    views = learnt.poses.matrix.flatten(2)
    for pose, (_, targets, *_) in zip(poses, batches, strict=True):
        for matrix, target in zip(pose.matrix.flatten(1), targets, strict=True):
            view, face = ((views - matrix).abs().amax(dim=2) == 0).nonzero()[0].tolist()
            assert int(target.argmax()) == face % 4 + view


def test_heads_that_are_not_trained_keep_their_weights(samples):
    how = Recipe(epochs=1, batch=16, sizes={16: 0.0}, net=SMALL, loss=Loss(votes=0))
    trainer = loop.Trainer(how, samples)
    before = trainer.net.plus.bias.clone(), trainer.net.emotion.bias.clone()
    advance(trainer, trainer.steps)
    assert torch.equal(trainer.net.plus.bias, before[0])
    assert not torch.equal(trainer.net.emotion.bias, before[1])


def test_a_state_of_another_recipe_and_other_files_are_refused(samples, tmp_path):
    trainer = loop.Trainer(HOW, samples)
    trainer.save(tmp_path / "state.pt")
    with pytest.raises(ConfigError, match="was made with another recipe"):
        loop.Trainer(Recipe(epochs=3, batch=16, sizes={16: 0.0}, net=SMALL), samples).restore(tmp_path / "state.pt")
    with pytest.raises(ConfigError, match="there is no checkpoint"):
        loop.load_net(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"something else")
    with pytest.raises(ConfigError, match="is not a checkpoint"):
        loop.load_net(tmp_path)


def test_a_full_disk_keeps_the_previous_state(samples, tmp_path):
    trainer = loop.Trainer(HOW, samples)
    trainer.save(tmp_path / "state.pt")
    trainer.advance()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(ConfigError, match="cannot be written"):
            trainer.save(tmp_path / "state.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    assert loop.load_checkpoint(tmp_path / "state.pt")["step"] == 0
