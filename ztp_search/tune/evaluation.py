"""Ray Tune's trainable: a configuration evaluated on more and more images, one rung a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune

from ztp_search.backbones.loading import LoadedModel, load_model
from ztp_search.data import ImageSets, ImageStore
from ztp_search.driver.evaluator import Evaluator, check_labels, decode_images, failure_error
from ztp_search.driver.progress import Progress
from ztp_search.driver.racing_trial import RacingTrial
from ztp_search.errors import ZtpError
from ztp_search.evaluation.image_range import ImageRange
from ztp_search.evaluation.runtime import Runtime, resolve_runtime
from ztp_search.evaluation.scheduler import Outcome
from ztp_search.evaluation.tasks import Failure
from ztp_search.objectives import OBJECTIVES, SIGNALS
from ztp_search.pruning.cost import flops
from ztp_search.racing import RACING
from ztp_search.settings import SearchSettings, Sources, WorkerOptions
from ztp_search.study import StoredTrial
from ztp_search.tune.asked import resolved_for_tune
from ztp_search.tune.trial_config import config_of

CHECKPOINT = "trial.json"


@dataclass(frozen=True, slots=True)
class Held:
    """What the process of a trial holds, whichever configurations it evaluates.

    Paths are absolute, as Tune lets trials run in folders of their own.

    Attributes:
        sources: where model and images come from.
        loaded: the model with its weights.
        search, holdout: folders of the decoded images.
        runtime, objective, signal: as in a search.
        cache_bytes: memory for activations that configurations share; None: 1 GB.
        first_images: of the first report; None: as many as on the first rung of a search.
    """

    sources: Sources
    loaded: LoadedModel
    search: Path
    holdout: Path
    runtime: Runtime
    objective: str
    signal: str
    cache_bytes: int | None
    first_images: int | None

    def evaluator(self) -> Evaluator:
        """Evaluates in this process."""
        images = ImageSets(ImageStore.open(self.search), ImageStore.open(self.holdout))
        workers = WorkerOptions(workers=0, cache_bytes=self.cache_bytes)
        return Evaluator(
            self.sources, self.loaded, images, self.runtime, self.objective, workers, Progress(),
            self.signal,
        )  # fmt: skip

    def rungs(self, evaluator: Evaluator) -> tuple[int, ...]:
        """How many images a trial has seen at each report: twice as many each time."""
        if self.first_images is None:
            return evaluator.rungs("both")
        return RACING["both"].rungs(evaluator.image_count("search"), self.first_images)


def trainable(settings: SearchSettings, first_images: int | None = None) -> type[Evaluation]:
    """A trainable for `ray.tune.Tuner`, which evaluates the configurations of `BudgetSearch`.

    Model and images are loaded here, and once more by each process that runs trials; with
    `reuse_actors=True` in TuneConfig there are as many of these as trials at a time, else one for
    each trial. Other machines of a cluster must see the folder `out` under the same path.

    Args:
        settings: model, images, objective, racing signal, precision, device, threads and
            `gpus_per_worker` of a trial; what Tune decides (trials, workers, racing, …) must not
            be stated.
        first_images: of the first report, which is what samplers learn from; None: as many as on
            the first rung of a search, and all images for everything in one report.

    Returns:
        A class that asks for a trial's share of the machine, and reports what `Evaluation` says.

    Raises:
        ZtpError: the user's mistake: the model or the images cannot be had as asked.

    Example:
        >>> from ztp_search import SearchSettings
        >>> from ztp_search.tune import trainable
        >>> settings = SearchSettings(space="digits", budget="50%", images=64, holdout=0)
        >>> issubclass(trainable(settings), Evaluation)
        True
    """
    asked, _ = resolved_for_tune(settings)
    runtime = resolve_runtime(asked.device, asked.precision, asked.batch_size, asked.threads)
    sources = replace(asked.sources, cache_dir=asked.sources.cache_dir.absolute())
    loaded = load_model(sources.model, data_overrides=sources.data_overrides)
    images = decode_images(sources, loaded, Progress())
    check_labels(images, OBJECTIVES[asked.objective], SIGNALS[asked.racing_signal])
    if first_images is not None and not 1 <= first_images <= len(images.search):
        raise ZtpError(
            f"`first_images` must be 1 to {len(images.search)}, the number of search images, but "
            f"got {first_images}"
        )
    held = Held(
        sources, loaded, images.search.path, images.holdout.path, runtime, asked.objective,
        asked.racing_signal, asked.workers.cache_bytes, first_images,
    )  # fmt: skip
    share: dict[str, float] = {"cpu": runtime.threads}
    if runtime.device != "cpu":
        share["gpu"] = settings.gpus_per_worker
    made: type[Evaluation] = tune.with_resources(
        tune.with_parameters(Evaluation, held=held), share
    )
    return made


class Evaluation(tune.Trainable):  # type: ignore[misc]  # ray has no types here
    """One trial: each step evaluates its configuration on the images of one more rung.

    All trials see the same images in the same order, and the results of a rung are those of a
    search with the same settings. A trial ends when it has seen all images. A step reports::

        images             seen so far: `time_attr` for schedulers
        accuracy           by the objective, estimated for all search images, a fraction of one
        standard_error     of that estimate
        loss               mean over the images seen of how far outputs are from where they should
                           be, 0 to 1: by default total variation from the unpruned model's output,
                           which needs no labels and tells configurations apart on few images
        minus_unpruned     accuracy minus the unpruned model's, on the images seen
        gflops             per image, including what pruning itself costs
        evaluation_seconds of forward passes
    """

    _evaluator: Evaluator
    _trial: RacingTrial
    _attrs: dict[str, Any]
    _gflops: float

    def setup(self, config: dict[str, Any], held: Held | None = None) -> None:
        assert held is not None  # `trainable` sees to it
        self._evaluator = held.evaluator()
        self._evaluator.hold_targets()
        self._unpruned = self._evaluator.score("search", self._evaluator.unpruned("search"))
        self._rungs = held.rungs(self._evaluator)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another trial, with the model and the images of the one before."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        trial = self._trial
        stop = next((rung for rung in self._rungs if rung > trial.images_seen), None)
        if stop is not None:  # else it was restored after its last rung
            outcome = self._outcome(ImageRange("search", trial.images_seen, stop))
            scores = self._evaluator.score("search", outcome.predictions, trial.images_seen)
            self._attrs = trial.add(outcome, scores, self._unpruned)
        return {
            "images": trial.images_seen,
            "accuracy": trial.value,
            "standard_error": self._attrs["standard_error"],
            "loss": trial.results.loss,
            "minus_unpruned": self._attrs["minus_unpruned"],
            "gflops": self._gflops,
            "evaluation_seconds": trial.seconds,
            "done": trial.images_seen == self._rungs[-1],
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the results per image, as JSON."""
        state = {"value": self._trial.value, "attrs": self._attrs}
        Path(checkpoint_dir, CHECKPOINT).write_text(json.dumps(state), encoding="utf-8")

    def load_checkpoint(self, checkpoint: str) -> None:
        """Go on behind the images that were seen; checkpoint: a folder."""
        state = json.loads(Path(checkpoint, CHECKPOINT).read_text(encoding="utf-8"))
        self._attrs = state["attrs"]
        self._trial = RacingTrial.from_stored(
            StoredTrial(
                0, "running", state["value"], self._trial.config, {**self._attrs, "point": ()}, {}
            )
        )

    def cleanup(self) -> None:
        self._evaluator.__exit__(None, None, None)

    def _begin(self, config: Mapping[str, Any]) -> None:
        """A trial that has seen no image."""
        self._trial = RacingTrial(0, config_of(config), ())
        self._gflops = flops(self._evaluator.geometry, self._trial.config).gflops()["total"]
        self._attrs = {}

    def _outcome(self, images: ImageRange) -> Outcome:
        key = ("trial", 0)
        (outcome,) = (
            completed.outcomes[key]
            for completed in self._evaluator.evaluate(iter([{key: self._trial.config}]), images)
            if key in completed.outcomes
        )
        if isinstance(outcome, Failure):
            raise failure_error(outcome, "the configuration")
        return outcome
