"""How often racing stops a configuration that is no worse, or better.

    python benchmarks/false_kills.py [--runs 20] [--truth digits:35%:1000 digits:50%:1000 …]

Simulated first, from recorded results of 1,000 configurations (benchmarks/truth.py): equal
configurations draw the result of every image from all recorded ones on that image, so that their
true accuracies and losses are the same; better ones take the unpruned model's result on so many
images that they are half a point better. Raced by the evidence rule alone, whose incumbent is
chosen on the images that it is compared on. To reach: at most 10 % of 1,000 equal ones are ever
stopped, and at most 1 % of the better ones (50 of them among 950 others).

Then on the recorded results themselves: of the configurations that a search stops, how many are
better than its winner by half a point, on images that it has not seen.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from common import record
from replay import replay
from truth import Truth, named_truth

from ztp_search.racing import RACING

MARGIN = 0.005
TRUTHS = ("digits:35%:1000", "digits:50%:1000", "digits:68%:1000")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--truth", nargs="+", default=list(TRUTHS))
    args = parser.parse_args()
    results = []
    for name in args.truth:
        known, about = named_truth(name, args.images)
        print(name)
        results.append(
            {
                **about,
                "simulated": [
                    simulated(known, better, losses, args.runs)
                    for better in (0, 50) for losses in (True, False)
                ],
                "recorded": [recorded(known, rule, args.seeds) for rule in ("halving", "both")],
            }  # fmt: skip
        )
    record("false_kills", {"arguments": vars(args), "truths": results})


def simulated(known: Truth, better: int, losses: bool, runs: int) -> dict[str, Any]:
    """The share of equal and of better configurations that the evidence rule stops."""
    correct, units, unpruned = known.correct, known.losses(), known.unpruned_correct
    trials, images = correct.shape
    gap = max(float(unpruned.mean() - correct.mean()), 1e-9)
    mended = min(1.0, MARGIN / gap)  # share of images on which better ones are as if unpruned
    stopped = [0, 0]
    for run in range(runs):
        generator = np.random.default_rng([run, better])
        rows = generator.integers(trials, size=(trials, images))
        drawn, lost = correct[rows, np.arange(images)], units[rows, np.arange(images)]
        whole = generator.random((better, images)) < mended
        drawn[:better] = np.where(whole, unpruned, drawn[:better])
        lost[:better] = np.where(whole, 0, lost[:better])
        order = generator.permutation(images)
        found = replay(
            drawn, lost if losses else None, unpruned, RACING["evidence"], np.arange(trials), order
        )
        stopped[0] += sum(trial >= better for trial in found.stopped)
        stopped[1] += sum(trial < better for trial in found.stopped)
    result = {
        "signal": "total-variation" if losses else "correct",
        "better_by_points": 100 * min(MARGIN, gap),
        "runs": runs,
        "equal": trials - better,
        "equal_stopped": stopped[0] / (runs * (trials - better)),
        "better": better,
        "better_stopped": stopped[1] / (runs * better) if better else None,
    }
    told = f"; of {better} better ones {result['better_stopped']:.3%}" if better else ""
    print(f"  {result['signal']}: of {trials - better} equal ones "
          f"{result['equal_stopped']:.2%} stopped{told}", flush=True)  # fmt: skip
    return result


def recorded(known: Truth, rule: str, seeds: int) -> dict[str, Any]:
    """Of what a search stops, the share that beats its winner by MARGIN on other images."""
    correct, losses, unpruned = known.correct, known.losses(), known.unpruned_correct
    stopped = better = searches = 0
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        order, pictures = (generator.permutation(n) for n in correct.shape)
        mine, theirs = np.split(pictures, 2)
        found = replay(correct, losses, unpruned, RACING[rule], order, mine)
        accuracies = correct[:, theirs].mean(1)
        ahead = accuracies[list(found.stopped)] - accuracies[found.winner] >= MARGIN
        stopped += len(ahead)
        better += int(ahead.sum())
        searches += bool(ahead.any())
    result = {
        "racing": rule,
        "seeds": seeds,
        "stopped": stopped,
        "better_by_half_a_point": better / max(1, stopped),
        "searches_with_one": searches / seeds,
    }
    print(f"  {rule}: of {stopped} stopped {result['better_by_half_a_point']:.3%} are half a point "
          f"better than the winner on other images", flush=True)  # fmt: skip
    return result


if __name__ == "__main__":
    main()
