r"""Train several nets within a time limit.

    python -m training.campaign training/campaigns/teachers.toml data/fer2013.csv --plus data/fer2013new.csv \
        --minutes 8 --out runs/teachers
    python -m training.campaign training/campaigns/teachers.toml sheets/ --out runs/teachers --estimate
    python -m training.campaign training/campaigns/students.toml sheets/ --soft runs/soft.npz --minutes 8 \
        --out runs/students

`training.campaign_file` describes the campaign's file. ``--beside`` nets are trained concurrently, each on its own CUDA
stream; when one is done, the next begins. At the time limit all of them stop. The output folder then has
``results-*.npz`` (`training.results`: at most eight files of at most 15 MiB) with each net's averaged weights, its log,
its probabilities for the views of each training face (for `training.distill`), and its probabilities for PublicTest
(for evaluation only; students are not trained on them). ``state/`` in the folder is used only to resume: run the same
command again.

This module needs only Python 3.11, torch and numpy, and OpenCV or Pillow if the faces are in sheets.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.system import files, machine
from training import campaign_file, data, recipe, results
from training.distill import Opinions, opinions
from training.loop import EAGER, Trainer, check, load_checkpoint
from training.model import accuracy, logits_of
from training.objective import Samples, Soft
from training.results import NetResult, Results
from training.setup import device_named, first_net, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from training.augment import Pose
    from training.campaign_file import Campaign, Entry
    from training.data import Faces

AHEAD = 16
"""Steps between waits for the device: with more launched steps pending, the time limit would be exceeded."""

WATCHED = 10
"""How often the accuracy on PublicTest is logged during a net's training; it influences nothing."""

KEPT = 60.0
"""Seconds between saves of a net in training: the most that is lost if the process is killed."""

WRITING = 3.0
"""Seconds reserved for writing the results."""

SAFE = 1.5
"""Safety factor on the estimated time for predicting all faces: other processes may slow the machine down."""

PROBED = {"cpu": 128, "cuda": 1024}
"""Number of faces that a net predicts at its start to estimate the time for all faces."""


class Clock:
    """The time limit; a termination signal ends the time at once."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        """Remaining seconds."""
        return self.end - time.monotonic()

    def late(self) -> bool:
        """Return whether the remaining time is only enough to write the results."""
        return self.left < WRITING

    def stop(self, *_: object) -> None:
        """End the time now."""
        self.end = time.monotonic()


class Net:
    """A net of the campaign: its entry, its progress, its log and its predictions (``answers``)."""

    def __init__(self, entry: Entry, trainer: Trainer, state: Path, shown: str) -> None:
        """Begin, or resume from the state file.

        Args:
            entry: the net's entry in the campaign's file.
            trainer: trains the net.
            state: the file that it is saved in.
            shown: identifies the faces and views to predict; saved predictions for others are discarded.
        """
        self.entry, self.trainer, self.state, self._shown = entry, trainer, state, shown
        self.log: list[dict[str, Any]] = []
        self.seconds, self.look, self._noted = 0.0, 0.0, 0.0
        self.answers: tuple[Opinions, Opinions] | None = None
        self._since, self._images, self.saved = time.monotonic(), 0, time.monotonic()
        if state.exists():
            kept = trainer.restore(state)
            self.log, self.seconds = json.loads(kept["log"]), kept["seconds"]
            self._noted = self.seconds
            self.answers = _answers_in(kept, shown)

    @property
    def done(self) -> bool:
        """Whether it is trained to its recipe's last step."""
        return self.trainer.step >= self.trainer.total

    @property
    def diverged(self) -> bool:
        """Whether its loss has become NaN or infinite."""
        return bool(self.log) and not math.isfinite(self.log[-1]["loss"])

    @property
    def ended(self) -> bool:
        """Whether it needs no more steps."""
        return self.done or self.diverged

    def advance(self, watched: Faces) -> None:
        """Take a step; at the end of an epoch, add a row to the log."""
        self.trainer.advance()
        self.answers = None  # the predictions of the net before this step
        self._images += min(self.entry.recipe.batch, len(self.trainer.samples.labels))
        if self.trainer.step % self.trainer.steps == 0:
            self._note(watched)

    def probe(self, faces: Tensor) -> None:
        """Measure how long the net takes to predict a face."""
        some = faces[: PROBED[self.trainer.device.type]]
        logits_of(self.trainer.average, some)  # the first call is slower
        began = time.monotonic()
        logits_of(self.trainer.average, some)
        self.look = (time.monotonic() - began) / len(some)

    def ask(self, faces: Tensor, poses: Pose, public: Tensor, clock: Clock) -> None:
        """Predict PublicTest and the views of the training faces, if there is time."""
        net, how = self.trainer.average, self.entry.recipe.loss
        if not self.trainer.samples.voted.any():  # without votes, FER+'s head keeps its initial weights
            how = dataclasses.replace(how, votes=0.0)
        self.trainer.finish()
        if self.diverged:
            _log(self.entry.name, "its loss became infinite or NaN; give it a lower learning rate, and a new name")
            return
        try:
            of_public = opinions(net, how, public, late=clock.late)
            self.answers = of_public, opinions(net, how, faces, poses, clock.late)
        except TimeoutError:
            self.answers = None
            _log(self.entry.name, "there was no time for soft targets; run the same command again to make them")

    def save(self) -> None:
        """Save everything that the same command needs to resume."""
        self.seconds += time.monotonic() - self._since
        self._since = self.saved = time.monotonic()
        answers = self.answers and tuple((opinion.emotion, opinion.plus) for opinion in self.answers)
        self.trainer.save(
            self.state,
            log=json.dumps(self.log),
            seconds=self.seconds,
            answers=answers,
            shown=self._shown,
            total=self.trainer.total,
        )

    def _note(self, watched: Faces) -> None:
        loss, now = self.trainer.mean_loss(), time.monotonic()
        record: dict[str, Any] = {"epoch": self.trainer.epoch, "loss": round(loss, 4)}
        self.seconds += now - self._since
        record["images/s"] = round(self._images / max(self.seconds - self._noted, 1e-6))
        record["seconds"] = round(self.seconds, 1)
        if self.done or self.trainer.epoch % max(self.entry.recipe.epochs // WATCHED, 1) == 0:
            record["accuracy"] = round(accuracy(self.trainer.average, watched), 4)
        self.log.append(record)
        self._since, self._noted, self._images = time.monotonic(), self.seconds, 0
        _log(self.entry.name, ", ".join(f"{name} {value}" for name, value in record.items()))


def _answers_in(kept: dict[str, Any], shown: str) -> tuple[Opinions, Opinions] | None:
    if kept["answers"] is None or kept["shown"] != shown:
        return None
    public, soft = kept["answers"]
    return Opinions(*public), Opinions(*soft)


def _result(entry: Entry, kept: dict[str, Any], shown: str) -> NetResult:
    """Return a net's result for `training.results`, from its saved state."""
    answers = _answers_in(kept, shown)
    public, soft = (None, None) if answers is None else (opinion.halves() for opinion in answers)
    return NetResult(
        entry.name,
        entry.recipe,
        kept["step"],
        kept["total"],
        json.loads(kept["log"]),
        public and (public[0][0], public[1][0]),
        soft,
        results.weights_of(kept["average"]),
        entry.publish,
        entry.keep,
        entry.rebalance,
        tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in entry.start if path.is_file()),
    )


class Crew:
    """The nets of a campaign: waiting, in training, and ended."""

    def __init__(
        self,
        campaign: Campaign,
        faces: Faces,
        out: Path,
        clock: Clock,
        device: torch.device,
        soft: Soft | None = None,
        beside: int = 1,
        recorded: bool = True,
    ) -> None:
        """Prepare the campaign; saved state in the folder is resumed.

        Args:
            campaign: what to train.
            faces: all the data.
            out: the folder of results; its ``state`` folder has the state to resume from.
            clock: the time limit.
            device: where to train.
            soft: the teachers' soft targets for the training faces.
            beside: the largest number of nets trained concurrently; memory may limit it further.
            recorded: whether a GPU replays captured steps; otherwise Python launches each kernel.

        Raises:
            ConfigError: a training face has no soft targets.
            SourceError: the data lacks a split.
        """
        self._campaign, self._out, self._clock, self._device = campaign, out, clock, device
        self._beside, self._recorded = beside, recorded
        self._learnt, self._watched = prepare(faces, campaign.nets[0].recipe)
        self._soft = soft and soft.of(self._learnt)
        self._shown, self._public = (torch.from_numpy(part.images)[:, None] for part in (self._learnt, self._watched))
        self._poses = campaign.views.poses(torch.from_numpy(self._learnt.rows))
        self._about = f"{campaign.views.to_json()} {self._watched.digest()}"
        self._waiting, self._active, self._found = list(campaign.nets), list[Net](), dict[str, NetResult]()
        self._round_took = 0.0  # seconds

    def run(self) -> Results:
        """Train until all nets are done or the time is over, and write the results.

        Returns:
            The results of all nets begun in this run or an earlier one, in the campaign's order.

        Raises:
            ConfigError: the folder's state is of another campaign or other data, or another campaign runs in it; the
                device has too little memory; or the folder cannot be written.
        """
        with _locked(self._out / "state"):
            self._look()
            return self._run()

    def _look(self) -> None:
        """Read the saved state; raise before any training if it belongs to another campaign."""
        for entry in self._campaign.nets:
            path = self._state_of(entry)
            if path.exists():
                kept = load_checkpoint(path)
                check(kept, path, entry.recipe, Samples.of(self._learnt, entry.recipe.loss, self._soft))
                self._found[entry.name] = _result(entry, kept, self._about)

    def _state_of(self, entry: Entry) -> Path:
        return self._out / "state" / f"{entry.name}.pt"

    def _run(self) -> Results:
        failed = None
        try:
            self._train()
        except RuntimeError as error:  # raised by the device; the results so far must still be written
            names = ", ".join(net.entry.name for net in self._active) or "a net"
            failed = ConfigError(
                f"{self._device} failed while {names} was trained ({str(error).splitlines()[0]}); {self._out} has the "
                "results until then. Try --eager, or --beside 1"
            )
        found = self._write()
        if failed is not None:
            raise failed
        return found

    def _write(self) -> Results:
        """Write the results of all nets that were begun."""
        nets = [self._found[entry.name] for entry in self._campaign.nets if entry.name in self._found]
        found = Results(self._learnt.rows, self._campaign.views, nets)
        if left_out := results.write(self._out, found):
            _log("results", f"no room for {', '.join(left_out)}; {self._out / 'state'} still has it")
        return found

    def _train(self) -> None:
        """Train until all nets are done or the time is over."""
        while self._fill():
            self._round()
            for net in [net for net in self._active if net.ended]:
                self._end(net)
                self._write()
            if not self._time:
                break
        for net in list(self._active):
            self._end(net)

    @property
    def _time(self) -> bool:
        """Whether there is time for another round, and for the predictions of all faces after it."""
        looks = self._campaign.views.count * len(self._shown) + 2 * len(self._public)
        return self._clock.left > WRITING + SAFE * looks * sum(net.look for net in self._active) + self._round_took

    def _fill(self) -> bool:
        """Begin nets while there is room; return whether any are in training."""
        while self._waiting and len(self._active) < self._beside and self._time:
            try:
                net = self._begin(self._waiting[0])
            except torch.OutOfMemoryError:
                if not self._active:
                    name = self._waiting[0].name
                    raise ConfigError(
                        f"{name} needs more memory than {self._device} has; make its batch smaller"
                    ) from None
                self._beside = len(self._active)
                break
            self._waiting.pop(0)
            if not (net.diverged or (net.done and net.answers)):
                net.probe(self._shown)
                self._active.append(net)
        return bool(self._active)

    def _begin(self, entry: Entry) -> Net:
        samples = Samples.of(self._learnt, entry.recipe.loss, self._soft)
        if not entry.recipe.loss.labels and not samples.voted.any():
            raise ConfigError(
                f"{entry.name} learns only FER+'s votes, and the data has none: give their file with --plus"
            )
        trainer = Trainer(entry.recipe, samples, self._device, self._recorded)
        if (first := first_net(entry.recipe, samples.faces, entry.start)) is not None:
            trainer.begin(first)
        net = Net(entry, trainer, self._state_of(entry), self._about)
        if self._device.type == "cuda":
            for _ in range(min(EAGER + 1, trainer.total - trainer.step)):
                net.advance(self._watched)  # capture a step now, so that a net that does not fit fails here
        return net

    def _round(self) -> None:
        """Take some steps of each net in training."""
        began = time.monotonic()
        for _ in range(AHEAD if self._device.type == "cuda" else 1):
            for net in self._active:
                if not net.ended:
                    net.advance(self._watched)
        for net in self._active:
            net.trainer.finish()
        self._round_took = time.monotonic() - began
        for net in self._active:
            if time.monotonic() - net.saved > KEPT:
                net.save()

    def _end(self, net: Net) -> None:
        """Save a net, compute its predictions, and save them."""
        net.save()
        net.ask(self._shown, self._poses, self._public, self._clock)
        net.save()
        self._found[net.entry.name] = _result(net.entry, load_checkpoint(net.state), self._about)
        self._active.remove(net)
        how = "done" if net.done else "stopped"
        _log(net.entry.name, f"{how} after {net.trainer.step} of {net.trainer.total} steps")


def estimate(campaign: Campaign, faces: Faces, device: torch.device, steps: int = 24, recorded: bool = True) -> str:
    """Return a table of each net's training time on a device, estimated from some steps at its final face size."""
    learnt, _ = prepare(faces, campaign.nets[0].recipe)
    lines = [f"{'net':24}{'ms/step':>10}{'images/s':>10}{'s/epoch':>10}{'epochs':>8}{'minutes':>9}{'MiB':>8}"]
    for entry in campaign.nets:
        how = recipe.parse(recipe.values_of(entry.recipe) | {"sizes": {str(entry.recipe.size(1.0)): 0.0}}, entry.name)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        trainer = Trainer(how, Samples.of(learnt, how.loss), device, recorded)
        for _ in range(steps // 3):
            trainer.advance()
        trainer.finish()
        began = time.monotonic()
        for _ in range(steps):
            trainer.advance()
        trainer.finish()
        took = (time.monotonic() - began) / steps
        memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0
        minutes = took * trainer.total / 60
        lines.append(
            f"{entry.name:24}{1e3 * took:10.2f}{how.batch / took:10.0f}{took * trainer.steps:10.2f}"
            f"{how.epochs:8}{minutes:9.2f}{memory:8.0f}"
        )
    return "\n".join(lines)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make a folder, and hold its lock for the duration of a ``with`` block.

    Raises:
        ConfigError: the folder cannot be made, or another process holds the lock.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                files.lock(lock.fileno())
            except BlockingIOError:
                raise ConfigError(f"another campaign runs in {folder.parent}; wait until it ends") from None
            except OSError:  # a file system without locks
                pass
            yield
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error


def _log(name: str, text: str) -> None:
    print(f"{name}: {text}", flush=True)


def main() -> None:
    """Run a campaign."""
    parser = argparse.ArgumentParser(description="Train several nets within a time limit, or resume in their folder.")
    parser.add_argument("campaign", type=Path, help="TOML file, see training/campaigns")
    data.add_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results and the state to resume")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="when to stop (default: when all are done)")
    parser.add_argument("--soft", type=Path, help="soft targets of the faces, from training.distill")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train")
    parser.add_argument("--beside", type=int, help="nets trained concurrently (default: 3 on a GPU, 1 on a CPU)")
    parser.add_argument("--threads", type=int, default=machine.threads(), help="CPU threads (default: all)")
    parser.add_argument(
        "--eager", action="store_true", help="on a GPU: capture no steps, launch each kernel from Python"
    )
    parser.add_argument(
        "--estimate", action="store_true", help="take a few steps of each net, and print how long each would take"
    )
    arguments = parser.parse_args()
    clock = Clock(arguments.minutes)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, clock.stop)
    torch.backends.cudnn.benchmark = True
    try:
        device = device_named(arguments.device)
        beside = arguments.beside if arguments.beside is not None else {"cuda": 3, "cpu": 1}[device.type]
        if not arguments.minutes > 0 or beside < 1 or arguments.threads < 1:
            raise ConfigError("--minutes must be above 0, and --beside and --threads at least 1")
        torch.set_num_threads(arguments.threads)
        campaign, faces = campaign_file.load(arguments.campaign), data.load(arguments.data, arguments.plus)
        if arguments.estimate:
            try:
                print(estimate(campaign, faces, device, recorded=not arguments.eager))
            except RuntimeError as error:
                raise ConfigError(f"{device} failed ({str(error).splitlines()[0]}); try --eager") from error
            return
        soft = arguments.soft and Soft.load(arguments.soft)
        crew = Crew(campaign, faces, arguments.out, clock, device, soft, beside, recorded=not arguments.eager)
        found = crew.run()
    except FerStreamError as error:
        raise SystemExit(str(error)) from error
    left = "" if clock.left == float("inf") else f", {max(clock.left, 0):.0f} s left"
    print(f"{arguments.out}: {len(found.nets)} of {len(campaign.nets)} nets{left}")


if __name__ == "__main__":
    main()
