"""Measure the net's share of a training step and the images per second, compared with the loop of another commit.

    python tests/bench/learning.py data/fer2013.csv
    git worktree add ../before 27165df && python tests/bench/learning.py data/fer2013.csv --against ../before

It measures CPU time. Each figure is the median of alternating rounds: this loop, the net alone on a prepared batch
(forward and backward), and, with ``--against``, the loop of a checkout before `training.loop` (`Trainer.run_epoch`).
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from training import data, loop, recipe  # noqa: E402
from training.objective import Samples, batch_loss, log_priors  # noqa: E402

BEFORE = """
import sys, time
from pathlib import Path
import torch
from tqdm import tqdm
from training import data, recipe, train
from training.objective import Samples
torch.set_num_threads(int(sys.argv[3]))
how = recipe.load(Path(sys.argv[1])).model_copy(update={"sizes": {48: 0.0}})
faces = data.load(Path(sys.argv[2])).split(data.TRAINING)[: how.batch * int(sys.argv[4])]
trainer = train.Trainer(how, Samples.of(faces, how.loss))
for line in sys.stdin:
    began = time.process_time()
    with tqdm(disable=True) as show:
        trainer.run_epoch(show)
    print((time.process_time() - began) / trainer.steps, flush=True)
"""


def timed(work, count):
    began = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - began) / count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path, help="Kaggle's fer2013.csv")
    parser.add_argument("--recipe", type=Path, default=ROOT / "training/recipes/student.toml")
    parser.add_argument("--against", type=Path, help="a checkout of a commit before training/loop.py")
    parser.add_argument("--steps", type=int, default=8, help="steps per round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    values = recipe.values_of(recipe.load(arguments.recipe)) | {"sizes": {"48": 0.0}}
    how = recipe.parse(values, str(arguments.recipe))
    faces = data.load(arguments.csv).split(data.TRAINING)[: how.batch * arguments.steps]
    samples = Samples.of(faces, how.loss)
    trainer, alone = loop.Trainer(how, samples), loop.Trainer(how, samples)
    shown = samples.faces[: how.batch].float()
    batch = (shown, samples.targets[0, : how.batch], samples.votes[0, : how.batch], samples.voted[: how.batch])
    priors = log_priors(samples, how.loss)
    alone.net.train()

    def net_alone():
        alone.net.zero_grad(set_to_none=False)
        with torch.autocast("cpu", torch.bfloat16, enabled=how.bfloat16 and loop.BFLOAT16, cache_enabled=False):
            loss = batch_loss(alone.net, batch, priors, how.loss)
        loss.backward()

    before = None
    if arguments.against:
        command = [sys.executable, "-c", BEFORE, arguments.recipe.resolve(), arguments.csv.resolve()]
        before = subprocess.Popen(
            [*map(str, command), str(arguments.threads), str(arguments.steps)],
            cwd=arguments.against, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    took = {"step": [], "net": [], "before": []}
    for number in range(arguments.rounds + 1):
        found = {"step": timed(trainer.advance, arguments.steps), "net": timed(net_alone, arguments.steps)}
        if before is not None:
            before.stdin.write("go\n")
            before.stdin.flush()
            found["before"] = float(before.stdout.readline())
        if number:  # the first is slower
            for name, seconds in found.items():
                took[name].append(seconds)
    share = statistics.median(net / step for net, step in zip(took["net"], took["step"], strict=True))
    step = statistics.median(took["step"])
    print(f"step {1e3 * step:.0f} ms, {how.batch / step:.0f} images/s")
    print(f"net alone, forward and backward: {share:.0%} of a step")
    if before is not None:
        before.stdin.close()
        before.wait()
        ratio = statistics.median(old / new for old, new in zip(took["before"], took["step"], strict=True))
        print(f"{ratio:.2f} times the images/s of {arguments.against}")


if __name__ == "__main__":
    main()
