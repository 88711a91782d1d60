"""Ray Tune's searcher: it suggests what a search under the same settings tries."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from ztp_search.backbones import geometry_of
from ztp_search.backbones.loading import build_model
from ztp_search.driver.known import check_enqueued, known_configs
from ztp_search.errors import ZtpError
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.methods import parse_config
from ztp_search.samplers import SAMPLERS, Known, Proposal, Sampler
from ztp_search.settings import SearchSettings
from ztp_search.settings.resolved import DECODER
from ztp_search.study.contract import differences
from ztp_search.study.parameters import parameters_of
from ztp_search.study.rows import to_json
from ztp_search.tune.asked import resolved_for_tune
from ztp_search.tune.trial_config import trial_config

FORMAT, VERSION = "ztp-search/tune-searcher", 1
METRIC, MODE = "loss", "min"
"""What samplers that learn go by unless told otherwise: as in a search, see `Evaluation`."""


@dataclasses.dataclass(slots=True)
class Suggested:
    """A trial that was suggested. value: of its first report, more is better; None: it failed."""

    trial_id: str
    config: PruningConfig
    point: tuple[float, ...]
    reported: bool = False
    value: float | None = None


class BudgetSearch(Searcher):  # type: ignore[misc]  # ray has no types here
    """Suggests configurations that meet the budget, each of them and by construction.

    The first suggestions are what is known beforehand (enqueued files, then hand-set schedules),
    as in a search; those after them are the sampler's. Suggestion i follows from the settings and
    i alone, so that Tune's trials are those of a search with the same settings. Of a sampler that
    learns (all but monte-carlo and qmc) it follows from the first reports of the generations
    before as well, but not from the order in which they came: nothing is suggested until each
    trial of a generation has reported once or ended. After `Tuner.restore` with
    `resume_unfinished=False` it would wait for ever for those that were left out.

    A suggestion holds the readable parameters of a study and, under "pruning_config", the
    configuration; `config_of` reads it.

    Args:
        settings: model, space, budget, seed, sampler and enqueued files; what Tune decides (trials,
            workers, racing, …) must not be stated.
        metric, mode: what samplers that learn go by, "min" or "max"; a metric that is maximised is
            taken to be a fraction of one. None: as TuneConfig has it, where Tune passes it on (it
            does so only together with a `param_space`), else "loss", "min".

    Attributes:
        decoder: turns points of the unit cube into configurations.

    Raises:
        ZtpError: the settings are wrong, or no configuration meets the budget.

    Example:
        >>> from ztp_search import SearchSettings
        >>> from ztp_search.tune import BudgetSearch, config_of
        >>> searcher = BudgetSearch(SearchSettings(space="digits", budget="50%"))
        >>> config = config_of(searcher.suggest("trial-0"))
    """

    def __init__(
        self, settings: SearchSettings, metric: str | None = None, mode: str | None = None
    ) -> None:
        if (metric is None) != (mode is None):
            raise ZtpError(f"`metric` and `mode` go together, but got {metric!r} and {mode!r}")
        if mode not in (None, "min", "max"):
            raise ZtpError(f"`mode` must be min or max, but got {mode!r}")
        asked, budget = resolved_for_tune(settings)
        self._stated = metric is not None
        learns = SAMPLERS[asked.sampler].generation is not None
        if learns and not self._stated:
            metric, mode = METRIC, MODE
        super().__init__(metric, mode)
        geometry = geometry_of(build_model(asked.sources.model))
        self.decoder = decoder = asked.decoder(geometry, budget)
        check_enqueued(asked.enqueued, [decoder])
        self._enqueued = asked.enqueued
        self._sampler_name = asked.sampler
        self._seed = asked.sources.seed
        blocks = [block.block for block in decoder.blocks]
        self._parameters = tuple(parameters_of(blocks, decoder.parameter_ranges()))
        self._contract: dict[str, Any] = {
            "space": asked.space.sha256,
            "decoder": DECODER,
            "geometry": dataclasses.asdict(geometry),
            "budget": dataclasses.asdict(decoder.budget),
            "enqueued": [config.digest() for config in asked.enqueued.values()],
            "sampler": asked.sampler,
            "seed": self._seed,
        }
        self._begin()

    def _begin(self) -> None:
        """Before the first suggestion."""
        proposed: set[bytes] = set()
        known = list(known_configs(self._enqueued, self.decoder))
        self._known = Known(self.decoder, self._seed, proposed, known)
        sampler = SAMPLERS[self._sampler_name]
        self._sampler: Sampler = sampler(self.decoder, self._seed, proposed)
        self._generation_start = len(self._known.configs)
        self._sampler.tell(self._generation_start, [], [])
        self._suggested: list[Suggested] = []
        self._by_id: dict[str, Suggested] = {}

    # ---- what Tune calls -----------------------------------------------------------------

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """Take metric and mode from TuneConfig unless they were stated.

        Returns:
            False: a `param_space` cannot say what is searched, but may hold constants.
        """
        if metric and mode and not self._stated:
            self._metric, self._mode = metric, mode
        return False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration; None while a generation is awaited, FINISHED behind the last."""
        if not self._learn():
            return None
        proposal = self._propose(len(self._suggested))
        if proposal is None:
            finished: str = Searcher.FINISHED
            return finished
        self._note(Suggested(trial_id, proposal.config, proposal.point))
        return trial_config(proposal.config, self._parameters)

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        self._report(trial_id, self._value_of(result))

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        self._report(trial_id, None if error or result is None else self._value_of(result))

    def save(self, checkpoint_path: str) -> None:
        """Write the state as JSON."""
        state = {
            "format": FORMAT,
            "version": VERSION,
            "contract": self._contract,
            "trials": [
                {
                    "id": each.trial_id, "config": each.config.to_dict(), "point": each.point,
                    "reported": each.reported, "value": each.value,
                }
                for each in self._suggested
            ],
        }  # fmt: skip
        Path(checkpoint_path).write_text(json.dumps(state), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Go on from a state that `save` wrote.

        Raises:
            ZtpError: it is none, or of a searcher with other settings.
        """
        state = _read_state(checkpoint_path)
        differing = differences(state["contract"], json.loads(to_json(self._contract)))
        if differing:
            raise ZtpError(
                f"searcher state {checkpoint_path} was made with other settings: "
                f"{', '.join(differing)}; use the old settings"
            )
        self._begin()
        for each in state["trials"]:
            config = parse_config(each["config"], f"{checkpoint_path}: config")
            self._known.exclude(config)  # and the sampler's, which shares what is excluded
            self._note(
                Suggested(
                    each["id"], config, tuple(each["point"]), each["reported"], each["value"]
                )
            )
            self._learn()

    # ---- the same for every order of events ----------------------------------------------

    def _propose(self, number: int) -> Proposal | None:
        known = number < len(self._known.configs)
        return (self._known if known else self._sampler).propose(number)

    def _note(self, suggested: Suggested) -> None:
        self._suggested.append(suggested)
        self._by_id[suggested.trial_id] = suggested

    def _learn(self) -> bool:
        """Tell the sampler of a generation that was suggested; False while a report is missing."""
        start, size = self._generation_start, self._sampler.generation
        if size is None or len(self._suggested) < start + size:
            return True
        generation = self._suggested[start : start + size]
        if not all(each.reported for each in generation):
            return False
        self._sampler.tell(
            start, [each.point for each in generation], [each.value for each in generation]
        )
        self._generation_start = start + size
        return True

    def _report(self, trial_id: str, value: float | None) -> None:
        """Take in the first report of a trial: the same images for all, whoever is stopped."""
        suggested = self._by_id.get(trial_id)
        if suggested is not None and not suggested.reported:
            suggested.reported, suggested.value = True, value

    def _value_of(self, result: Mapping[str, Any]) -> float | None:
        """What the sampler is told: more is better, and minus a loss."""
        value = result.get(self._metric) if self._metric else None
        if value is None or not math.isfinite(value):
            return None
        return float(value) - 1.0 if self._mode == "max" else -float(value)


def _read_state(path: str) -> dict[str, Any]:
    """The state of a file; ZtpError where it is none."""
    try:
        state: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ZtpError(f"searcher state {path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # UnicodeDecodeError among them
        raise ZtpError(f"searcher state {path} is not valid JSON: {error}") from None
    if not isinstance(state, dict) or (state.get("format"), state.get("version")) != (
        FORMAT, VERSION,
    ):  # fmt: skip
        raise ZtpError(f"searcher state {path} is no file that BudgetSearch.save has written")
    return state
