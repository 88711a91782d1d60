"""A device with too little memory: smaller batches, remembered, and a trial that does not fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Finished
from helpers.running import SEARCH, attributes, stored

import ztp_search
from ztp_search import SearchSettings
from ztp_search.backbones import ActivationCache
from ztp_search.driver.progress import Progress
from ztp_search.errors import ZtpError
from ztp_search.pruning.config import PruningConfig
from ztp_search.study.packing import unpack_bits, unpack_losses

MESSAGE = "CUDA out of memory. Tried to allocate 20 MiB"


class Short:
    """Memory for so many images at a time. too_many: how often more were tried.

    never: a configuration that there is no memory for at all.
    """

    def __init__(self, images: int, never: PruningConfig | None = None) -> None:
        self.images = images
        self.never = never
        self.too_many = 0
        self._logits = ActivationCache.logits

    def logits(self, activations: ActivationCache, config: PruningConfig | None) -> torch.Tensor:
        logits = self._logits(activations, config)
        if len(logits) > self.images or (config is not None and config == self.never):
            self.too_many += 1
            raise torch.OutOfMemoryError(MESSAGE)
        return logits


def search(out: Path, monkeypatch: pytest.MonkeyPatch, short: Short, **changes: Any) -> str:
    """Search with so little memory in this process, and return the notes."""
    notes: list[str] = []
    monkeypatch.setattr(ActivationCache, "logits", lambda self, config: short.logits(self, config))

    class Listener(Progress):
        def note(self, text: str) -> None:
            notes.append(text)

    settings = SearchSettings(**{**SEARCH, "workers": 0, "out": out, **changes})
    ztp_search.search(settings, Listener())
    return "\n".join(notes)


def batch_sizes(origins: Sequence[dict[str, Any]]) -> set[int]:
    return {each["batch_size"] for each in origins}


def test_a_search_goes_on_with_the_batches_that_fit_and_remembers_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Finished
) -> None:
    short = Short(10)
    notes = search(tmp_path, monkeypatch, short)
    assert "memory is short: batches of 8 in place of 32 images" in notes
    trials, expected = stored(tmp_path), stored(finished.out)
    assert [t.config for t in trials] == [t.config for t in expected]
    for found, undisturbed in zip(trials, expected, strict=True):
        assert batch_sizes(found.attrs["origins"]) == {8}
        assert batch_sizes(undisturbed.attrs["origins"]) == {32}
        assert sum(each["images"] for each in found.attrs["origins"]) == 96
        assert {each["precision"] for each in found.attrs["origins"]} == {"fp32"}
        assert unpack_bits(found.attrs["correct"], 96).tolist() == (
            unpack_bits(undisturbed.attrs["correct"], 96).tolist()
        )
        losses = [unpack_losses(each.attrs["losses"]).astype(int) for each in (found, undisturbed)]
        assert np.abs(losses[0] - losses[1]).max() <= 65  # a thousandth
    for candidate in attributes(tmp_path)["holdout"]["candidates"].values():
        assert batch_sizes(candidate["origins"]) == {8}
        assert sum(each["images"] for each in candidate["origins"]) == 64

    tried = short.too_many
    assert tried
    more = search(tmp_path, monkeypatch, short, trials=len(trials) + 2)
    assert short.too_many == tried and "memory is short" not in more
    assert [batch_sizes(t.attrs["origins"]) for t in stored(tmp_path)[-2:]] == [{8}] * 2


def test_a_trial_that_does_not_fit_one_image_at_a_time_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Finished
) -> None:
    too_much = stored(finished.out)[5].config
    search(tmp_path, monkeypatch, Short(32, never=too_much))
    trials = stored(tmp_path)
    assert [trial.state for trial in trials].count("complete") == len(trials) - 1
    assert trials[5].state == "failed"
    assert trials[5].attrs["failure"] == f"out of memory on one image: {MESSAGE}"


def test_an_unpruned_model_that_does_not_fit_at_all_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ZtpError, match="unpruned needs more memory than the device has .* use a"):
        search(tmp_path, monkeypatch, Short(0))
