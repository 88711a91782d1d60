"""Searches whose trials are made up rather than run: the service's own but for the evaluation.

A configuration's harm follows from its layers by a rule (`harm_of`), so that what a study must show
is known beforehand, and hundreds of trials take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from ztp_search.pruning.config import PruningConfig

MADE_UP: Mapping[str, Any] = {
    "space": "digits", "budget": "50%", "trials": 90, "images": 128, "holdout": 64,
    "batch_size": 64, "precision": "fp32", "candidates": 4, "workers": 0, "speed": "off",
}  # fmt: skip


def harm_of(config: PruningConfig) -> float:
    """What it costs, 0 to 1: the tokens taken out behind block 1, tokens parted by position, and
    a little that is its own."""
    first = next((each for each in config.layers if each.after_block == 1), None)
    lost = 0.0 if first is None else 1 - first.retention + first.s_tokens / 100
    own = config.digest()[:4]
    return 0.3 * lost + 0.3 * (config.partition == "position") + 0.03 * int(own, 16) / 16**4


def made_up_search(out: Path, *, tasks: int | None = None, **changes: Any) -> None:
    """Search digits into `out`; interrupted as by Ctrl-C after so many tasks."""
    import ztp_search
    from ztp_search.evaluation.model_runner import RangeResult
    from ztp_search.evaluation.tasks import Results, Task, evaluate_task

    done = 0
    unpruned: dict[Any, Any] = {}

    def made_up(runner: Any, task: Task) -> Results:
        nonlocal done
        done += 1
        if tasks is not None and done > tasks:
            raise KeyboardInterrupt
        if None in task.configs:
            return evaluate_task(runner, task)
        if task.images not in unpruned:
            (result,) = runner.run([None], task.images)
            unpruned[task.images] = result.predictions
        right = unpruned[task.images]
        compared = task.images.image_set in runner.targets
        results = []
        for config in task.configs:
            rng = np.random.default_rng([*config.digest().encode(), task.images.start])
            harm = harm_of(config)
            wrong = rng.random(len(task.images)) < 0.5 * harm
            losses = 65_535 * np.clip(harm * rng.uniform(0.5, 1.5, len(task.images)), 0, 1)
            predictions = np.where(wrong, (right + 1) % 10, right).astype(np.int32)
            results.append(
                RangeResult(
                    predictions, 0, 0.01, runner.origin,
                    losses.astype(np.uint16) if compared else None,
                )  # fmt: skip
            )
        return results

    settings = ztp_search.SearchSettings(**{**MADE_UP, "out": out, **changes})
    search = ztp_search.search_front if len(settings.budgets) > 1 else ztp_search.search
    with mock.patch("ztp_search.evaluation.local_pool.evaluate_task", made_up):
        try:
            search(settings)
        except KeyboardInterrupt:
            assert tasks is not None and done > tasks
