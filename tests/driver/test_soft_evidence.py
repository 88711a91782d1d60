"""Losses: computed by workers, stored, replayed, and what trials are ranked by."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import Finished
from helpers.running import RACE, SEARCH, attributes, ranked, results, stored

import ztp_search
from ztp_search import SearchSettings
from ztp_search.backbones.loading import load_model
from ztp_search.data import normalise
from ztp_search.driver.evaluator import decode_images
from ztp_search.driver.progress import Progress
from ztp_search.errors import DataError, StudyError, ZtpError
from ztp_search.pruning.config import PruningConfig
from ztp_search.racing import Results, predicted_differences
from ztp_search.settings import resolve_search
from ztp_search.study import StoredTrial
from ztp_search.study.packing import unpack_bits, unpack_losses, unpack_predictions

Floats = npt.NDArray[np.float64]


def distributions(out: Path, config: PruningConfig | None) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Output distributions on the search images, straight from the model, and the labels."""
    sources = resolve_search(SearchSettings(**SEARCH, out=out)).sources
    loaded = load_model(sources.model, data_overrides=sources.data_overrides)
    images = decode_images(sources, loaded, Progress()).search
    ztp_search.apply(loaded.model, config)
    mean, std = loaded.data_config["mean"], loaded.data_config["std"]
    x = normalise(torch.from_numpy(np.array(images.images)), mean, std)
    with torch.inference_mode():
        logits = loaded.model(x)  # (images, classes)
    return torch.softmax(logits.double(), -1).numpy(), images.labels


def losses_of(trial: StoredTrial) -> npt.NDArray[np.uint16]:
    return unpack_losses(trial.attrs["losses"])


def search(out: Path, **changes: Any) -> dict[str, Any]:
    settings = {**SEARCH, "workers": 0, "out": out, **changes}
    return ztp_search.search(SearchSettings(**settings)).to_dict()


def test_losses_are_the_total_variation_from_the_unpruned_model(finished: Finished) -> None:
    unpruned, _ = distributions(finished.out, None)
    for trial in (stored(finished.out)[1], ranked(finished.out)[0]):
        pruned, _ = distributions(finished.out, trial.config)
        expected = np.abs(pruned - unpruned).sum(1) / 2
        np.testing.assert_allclose(losses_of(trial) / 65535, expected, atol=2e-5)
        assert trial.attrs["loss"] == pytest.approx(losses_of(trial).mean() / 65535)
    evidence = finished.document["best"]["evidence"]["search"]
    assert evidence["total_variation"] == ranked(finished.out)[0].attrs["loss"]
    assert "losses" not in evidence


def test_scores_are_what_is_to_be_expected_of_the_accuracy(finished: Finished) -> None:
    reference = attributes(finished.out)["reference"]["unpruned"]
    _, labels = distributions(finished.out, None)
    trials = stored(finished.out)
    found = [Results(unpack_bits(trial.attrs["correct"], 96), losses_of(trial)) for trial in trials]
    expected = predicted_differences(found, unpack_predictions(reference["predictions"]) == labels)
    scores = attributes(finished.out)["scores"]
    assert scores == {str(t.number): x for t, x in zip(trials, expected.tolist(), strict=True)}


def test_label_probability_measures_the_distance_from_the_label(tmp_path: Path) -> None:
    found = search(tmp_path, racing_signal="label-probability", trials=5)
    trial = stored(tmp_path)[4]
    pruned, labels = distributions(tmp_path, trial.config)
    expected = 1 - pruned[np.arange(96), labels]
    np.testing.assert_allclose(losses_of(trial) / 65535, expected, atol=2e-5)
    evidence = found["best"]["evidence"]["search"]
    best = ranked(tmp_path)[0]
    assert evidence["label_probability"] == pytest.approx(1 - losses_of(best).mean() / 65535)
    assert "total_variation" not in evidence


def test_right_and_wrong_alone_have_no_losses_and_rank_by_accuracy(tmp_path: Path) -> None:
    search(tmp_path, racing_signal="correct")
    trials = stored(tmp_path)
    assert not any({"loss", "losses"} & trial.attrs.keys() for trial in trials)
    scores = attributes(tmp_path)["scores"]
    best = max(trials, key=lambda trial: scores[str(trial.number)])
    assert best.value == max(trial.value or 0.0 for trial in trials)


def test_right_and_wrong_alone_begin_with_64_images(tmp_path: Path) -> None:
    found = search(tmp_path, **{**RACE, "racing": "both", "racing_signal": "correct", "trials": 6})
    assert found["racing"]["rungs"] == [64, 128, 256]
    assert found["racing"]["signal"] == "correct"


def test_the_signal_belongs_to_the_study(finished: Finished) -> None:
    with pytest.raises(StudyError, match=r"racing.signal total-variation \(now correct\)"):
        search(finished.out, racing_signal="correct")
    with pytest.raises(ZtpError, match="`racing_signal` must be one of total-variation"):
        search(finished.out, racing_signal="kl")


def test_agreement_races_without_labels_but_not_by_their_probability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = search(tmp_path / "a", objective="agreement", trials=5)
    assert 0 <= found["best"]["evidence"]["search"]["total_variation"] < 1
    plain = ztp_search.driver.run.decode_images

    def without_labels(*args: Any) -> Any:
        images = plain(*args)
        images.search.labels[:] = -1
        return images

    monkeypatch.setattr(ztp_search.driver.run, "decode_images", without_labels)
    search(tmp_path / "b", objective="agreement", trials=5)
    with pytest.raises(DataError, match="label-probability needs a label for every image"):
        search(tmp_path / "c", objective="agreement", racing_signal="label-probability")


def test_targets_that_are_lost_are_computed_again(finished: Finished, tmp_path: Path) -> None:
    search(tmp_path, trials=6)
    kept = list((tmp_path / "images" / "unpruned").glob("*-distributions.npy"))
    assert len(kept) == 1
    assert np.load(kept[0]).shape == (96, 10)
    kept[0].write_bytes(b"damaged")
    search(tmp_path)
    assert results(stored(tmp_path)) == results(stored(finished.out))
    assert np.load(kept[0]).shape == (96, 10)
