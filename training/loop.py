"""The training loop, on a CPU or a GPU: `training.train` runs it for one net, `training.campaign` for several.

All inputs of a step are in the device's memory before the step begins: the faces as bytes, the targets, and tables with
the epoch's sample order and rates. A counter on the device selects the row of the tables, so Python only launches the
step. On a GPU the launch replays a CUDA graph, captured once for each face size. A small net's step has about a hundred
short kernels, and Python takes longer to launch them than the GPU takes to run them.

Random draws depend on the seed and the step number only. On a deterministic device, a training that is stopped at any
step and resumed ends with the same weights as one that was not stopped.
"""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from fer_stream.errors import ConfigError
from training import recipe
from training.augment import blend, patch, pose, show, spoil
from training.bodies import build
from training.model import logits_of
from training.nudge import degraded, nudged
from training.objective import batch_loss, log_priors

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from training.model import Net
    from training.objective import Samples
    from training.recipe import Recipe

BFLOAT16 = any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
"""Whether this processor multiplies bfloat16; otherwise torch emulates it at a twelfth of float32's speed."""

EAGER = 3
"""Steps of each size that a GPU takes before one is captured: cuDNN chooses its algorithms in these."""

RATE, KEEP, MIX = 0, 1, slice(2, 7)
"""Columns of the table of an epoch's steps: learning rate, decay of the average, argument of `augment.patch`."""


class Trainer:
    """The state of a training; `save` writes it to a file and `restore` resumes from it.

    ``net`` is trained. ``average`` holds the moving average of its weights and statistics; this is what is exported.
    ``step`` counts the steps done.
    """

    def __init__(
        self, how: Recipe, samples: Samples, device: torch.device | None = None, recorded: bool = True
    ) -> None:
        """Begin with random weights.

        Args:
            how: the recipe.
            samples: the training samples; they are moved to the device.
            device: where to train (default: the CPU).
            recorded: whether a GPU replays captured steps; otherwise Python launches each kernel.
        """
        self.how, self.device = how, device or torch.device("cpu")
        self.samples = samples.to(self.device)
        torch.manual_seed(how.seed)
        self.net = build(how.net).to(self.device)
        self.average = build(how.net).to(self.device)
        self.average.load_state_dict(self.net.state_dict())
        self._weights, self._averaged = _Flat(self.net), _Flat(self.average)
        self._momentum = torch.zeros_like(self._weights.learnt)
        emotion, plus = log_priors(samples, how.loss)
        self._priors = emotion.to(self.device), plus.to(self.device)
        self.step = 0
        self._table = torch.zeros(self.steps, 7, device=self.device)
        self._order = torch.zeros(self.steps, self._batch, dtype=torch.int64, device=self.device)
        self._at = torch.zeros(1, dtype=torch.int64, device=self.device)
        self._total = torch.zeros((), device=self.device)
        self._counted, self._planned = 0, -1
        self._stream = _stream_on(self.device)
        self._draws = None if self._stream is None else torch.Generator(self.device)
        self._recorded = recorded and self._stream is not None
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._eager: dict[int, int] = {}
        self._settle()

    @property
    def _batch(self) -> int:
        return min(self.how.batch, len(self.samples.labels))

    @property
    def steps(self) -> int:
        """Steps in an epoch. The last incomplete batch is dropped; in each epoch these are other faces."""
        return max(len(self.samples.labels) // self.how.batch, 1)

    @property
    def total(self) -> int:
        """Steps in the whole training."""
        return self.how.epochs * self.steps

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step // self.steps

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return self._row(max(self.step - 1, 0))[RATE]

    def advance(self) -> None:
        """Train for one step. On a GPU this returns before the step is done."""
        if self.epoch != self._planned:
            self._plan()
        size = self.how.size(self.step / self.total)
        if self._stream is None or self._draws is None:
            torch.manual_seed(_seed(self.how.seed, self.step))
            self._work(size)
        else:
            # A captured step reads its seed from the generator state it was captured with. If nets side by side shared
            # that state, one net would overwrite a seed that another net's stream has not read yet.
            torch.cuda.default_generators[self.device.index or 0].graphsafe_set_state(self._draws)
            torch.manual_seed(_seed(self.how.seed, self.step))
            with torch.cuda.stream(self._stream):
                self._repeat(size)
        self.step += 1
        self._counted += 1

    def finish(self) -> None:
        """Wait until all launched steps are done."""
        if self._stream is not None:
            self._stream.synchronize()

    def mean_loss(self) -> float:
        """Return the mean loss of the steps since the last call."""
        self.finish()
        mean = float(self._total) / max(self._counted, 1)
        self._total.zero_()
        self._counted = 0
        self._settle()
        return mean

    def sample_losses(self) -> Tensor:
        """Return each sample's loss ``[N]`` under the averaged weights, without augmentation or label smoothing."""
        self.finish()
        logits, _ = logits_of(self.average, self.samples.faces)
        return functional.cross_entropy(logits, self.samples.labels.cpu(), reduction="none")

    def begin(self, net: Net) -> None:
        """Start from the weights of another net of the same shape instead of random weights."""
        self.net.load_state_dict(net.state_dict())
        self.average.load_state_dict(net.state_dict())
        self._settle()

    def state(self) -> dict[str, Any]:
        """Return the state to save; `restore` reads it."""
        self.finish()
        return {
            "recipe": json.dumps(recipe.values_of(self.how)),
            "samples": self.samples.digest,
            "step": self.step,
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "momentum": self._momentum,
            "loss": (self._total, self._counted),
        }

    def save(self, path: Path, **more: Any) -> None:
        """Write the state and any additional values to a file atomically.

        Raises:
            ConfigError: the file cannot be written; its previous content is kept.
        """
        draft, state = path.with_suffix(".draft"), self.state() | more
        try:
            torch.save(state, draft)
            draft.replace(path)
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError if the disk is full
            draft.unlink(missing_ok=True)
            raise ConfigError(
                f"{path} cannot be written ({str(error).splitlines()[0]}); is the disk full? Its old content is kept"
            ) from error

    def restore(self, path: Path) -> dict[str, Any]:
        """Resume from a file that `save` wrote, and return its content.

        Raises:
            ConfigError: the file was written with another recipe, or on other data.
        """
        state = load_checkpoint(path)
        check(state, path, self.how, self.samples)
        self.step = state["step"]
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self._momentum.copy_(state["momentum"])
        total, self._counted = state["loss"]
        self._total.copy_(total)
        self._settle()
        return state

    def _settle(self) -> None:
        """Wait for all work on the device, also outside the net's own stream: streams do not wait for each other."""
        if self._stream is not None:
            torch.cuda.synchronize(self.device)

    def _plan(self) -> None:
        """Draw this epoch's sample order, and write the table with the inputs of each step."""
        epoch, how = self.epoch, self.how
        order = torch.randperm(
            len(self.samples.labels), generator=torch.Generator().manual_seed(_seed(how.seed, -1 - epoch))
        )
        rows = [self._row(epoch * self.steps + step) for step in range(self.steps)]
        with torch.cuda.stream(self._stream):  # after the last epoch's steps, and before this one's
            self._order.copy_(order[: self.steps * self._batch].view(self.steps, self._batch))
            self._table.copy_(torch.tensor(rows))
            self._at.fill_(self.step - epoch * self.steps)
        self._planned = epoch

    def _row(self, done: int) -> list[float]:
        """Return one step's row of the table; its columns are `RATE`, `KEEP` and `MIX`."""
        how, progress = self.how, done / self.total
        warm = min(1.0, (done + 1) / max(how.optimizer.warmup, 1))
        rate = how.optimizer.learning_rate * warm * (0.5 + 0.5 * math.cos(math.pi * progress))
        keep = min(how.optimizer.average, (1 + done) / (10 + done))
        share, box = 1.0, (0.0, 0.0, 0.0, 0.0)
        draw = random.Random(_seed(how.seed, done))  # noqa: S311 - nothing secret
        chosen, change = draw.random(), how.augmentation
        if progress < change.mixup_until:
            if chosen < change.mixup:
                share = draw.betavariate(change.mixup_alpha, change.mixup_alpha)
            elif chosen < change.mixup + change.cutmix:
                side = math.sqrt(draw.random())  # makes the rectangle's area uniformly distributed, as in CutMix
                x, y = (draw.random() * (1 - side) for _ in range(2))
                box = (x, y, x + side, y + side)
        return [rate, keep, share, *box]

    def _repeat(self, size: int) -> None:
        """Take a step on a GPU: replay the captured step; before one is captured, count the steps taken without it."""
        seen = self._eager.get(size, 0)
        if not self._recorded or seen < EAGER:
            self._eager[size] = seen + 1
            self._work(size)
            return
        if size not in self._graphs:
            graph = torch.cuda.CUDAGraph()
            pool = next(iter(self._graphs.values())).pool() if self._graphs else None
            with torch.cuda.graph(graph, pool=pool, stream=self._stream):
                self._work(size)
            self._graphs[size] = graph
        self._graphs[size].replay()

    def _work(self, size: int) -> None:
        """Take the step that the counter selects, and increment the counter."""
        row = self._table.index_select(0, self._at)[0]
        batch = self._draw(self._order.index_select(0, self._at)[0], row[MIX], size)
        self.net.train()
        self.net.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16, cache_enabled=False):
            loss = batch_loss(self.net, batch, self._priors, self.how.loss)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self._descend(row[RATE])
            self._averaged.values.lerp_(self._weights.values, 1 - row[KEEP])
            self._total += loss.detach()
            self._at += 1

    @property
    def _bfloat16(self) -> bool:
        return self.how.bfloat16 and (BFLOAT16 or self.device.type == "cuda")

    @torch.no_grad()
    def _draw(self, rows: Tensor, mix: Tensor, size: int) -> tuple[Tensor, ...]:
        """Return a batch as `batch_loss` takes it, from the samples in some rows.

        With ``loss.steady`` it has a second look at each face, with the same targets.
        """
        samples, how = self.samples, self.how.augmentation
        draws = torch.cuda.default_generators[self.device.index or 0] if self._stream else torch.default_generator
        view = torch.randint(len(samples.targets), rows.shape, generator=draws, device=self.device)
        posed = pose(len(rows), how, draws) if samples.poses is None else samples.poses[view, rows]
        pixels = samples.faces[rows].float()
        faces = spoil(show(pixels, posed, size), how, draws)
        if self.how.loss.steady:
            again = show(pixels, nudged(posed, self.how.nudge, draws), size)
            faces = torch.stack([faces, degraded(again, self.how.nudge, draws)])
        else:
            faces = faces[None]
        targets = (samples.targets[view, rows], samples.votes[view, rows], samples.voted[rows])
        if not (how.mixup or how.cutmix):
            return faces.flatten(0, 1), *targets
        own = patch(mix, size)
        share = own.mean()
        mixed = torch.cat([blend(look, own) for look in faces])
        return mixed, *(blend(target, share) for target in targets)

    def _descend(self, rate: Tensor) -> None:
        """Move the weights against the gradient: clipped, with weight decay and Nesterov's momentum."""
        how, gradient, momentum = self.how.optimizer, self._weights.gradient(), self._momentum
        gradient *= (how.clip / (gradient.norm() + 1e-6)).clamp(max=1)
        decaying = self._weights.decaying
        gradient[:decaying].add_(self._weights.learnt[:decaying], alpha=how.weight_decay)
        momentum.mul_(how.momentum).add_(gradient)
        gradient.add_(momentum, alpha=how.momentum)
        self._weights.learnt.sub_(gradient * rate)


class _Flat:
    """A net's weights and statistics, stored contiguously in ``values``; the net's tensors are views of it.

    The optimizer and the moving average then need a few operations on one tensor instead of a few on each of a hundred.
    First come ``decaying`` numbers that weight decay applies to, then biases and normalisation factors, then
    statistics.
    """

    def __init__(self, net: nn.Module) -> None:
        self._parameters = sorted(net.parameters(), key=lambda weights: weights.ndim <= 1)
        statistics = [values for values in net.buffers() if values.dtype.is_floating_point]
        parts = [*self._parameters, *statistics]
        self.decaying = sum(weights.numel() for weights in self._parameters if weights.ndim > 1)
        self._count = sum(weights.numel() for weights in self._parameters)
        self.values = torch.empty(sum(part.numel() for part in parts), device=parts[0].device)
        with torch.no_grad():
            for part, view in zip(parts, _views_of(self.values, parts), strict=True):
                part.data = view.copy_(part)

    @property
    def learnt(self) -> Tensor:
        return self.values[: self._count]

    def gradient(self) -> Tensor:
        """Return all parameters' gradients in the layout of ``learnt``; 0 where the loss does not use a parameter."""
        found = [torch.zeros_like(weights) if weights.grad is None else weights.grad for weights in self._parameters]
        return torch.cat([(part.permute(0, 2, 3, 1) if part.ndim == 4 else part).reshape(-1) for part in found])


def _views_of(values: Tensor, parts: list[Any]) -> list[Tensor]:
    """Return a view of ``values`` for each part, in its shape; convolution weights are channels-last."""
    views = []
    for piece, part in zip(torch.split(values, [part.numel() for part in parts]), parts, strict=True):
        if part.ndim == 4:
            outputs, inputs, height, width = part.shape
            views.append(piece.view(outputs, height, width, inputs).permute(0, 3, 1, 2))
        else:
            views.append(piece.view(part.shape))
    return views


def _stream_on(device: torch.device) -> torch.cuda.Stream | None:
    """Return a new CUDA stream, so that nets run concurrently; ``None`` for a CPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _seed(seed: int, step: int) -> int:
    """Return a seed for one step of a training, far from those of its other steps and of other trainings."""
    mixed = (seed * 0x9E3779B97F4A7C15 + (step + 2**31) * 0xBF58476D1CE4E5B9) % 2**64
    return (mixed ^ (mixed >> 31)) % 2**63


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state that `Trainer.save` wrote.

    Raises:
        ConfigError: the file is missing, or is not a checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no checkpoint {path}; python -m training.train makes one") from error
    except Exception as error:  # torch's unpickler may raise any kind of exception
        raise ConfigError(f"{path} is not a checkpoint of training.train") from error
    if not isinstance(state, dict) or not {"net", "average", "momentum", "recipe", "step", "samples"} <= state.keys():
        raise ConfigError(f"{path} is not a checkpoint of training.train")
    return state


def check(state: dict[str, Any], path: Path, how: Recipe, samples: Samples) -> None:
    """Check that a state belongs to this recipe and these samples.

    Args:
        state: what `load_checkpoint` returned.
        path: its file, for the message.
        how: the recipe.
        samples: the training samples.

    Raises:
        ConfigError: the state is of another recipe, or of other data.
    """
    if json.loads(state["recipe"]) != recipe.values_of(how):
        raise ConfigError(f"{path} was made with another recipe; choose another folder, or remove it")
    if state["samples"] != samples.digest:
        raise ConfigError(f"{path} was made on other data, votes or soft targets; choose another folder, or remove it")


def recipe_of(state: dict[str, Any], path: Path) -> Recipe:
    """Return the recipe in a checkpoint.

    Raises:
        ConfigError: this version of the program does not accept it.
    """
    return recipe.parse(json.loads(state["recipe"]), f"the recipe in {path}")


def load_net(run: Path) -> Net:
    """Return the net of a run, with its averaged weights.

    Raises:
        ConfigError: the run has no valid checkpoint.
    """
    path = run / "checkpoint.pt"
    state = load_checkpoint(path)
    net = build(recipe_of(state, path).net)
    net.load_state_dict(state["average"])
    return net.eval()
