"""The evaluator: what stock timm says, whatever ran before, however images are cut into blocks."""

import copy

import numpy as np
import pytest
import torch
from conftest import Digits

from ztp_search.backbones import apply
from ztp_search.config import PruningConfig, PruningLayer
from ztp_search.data import ImageStore
from ztp_search.errors import ConfigError, ZtpError
from ztp_search.evaluate import Evaluator, Runtime, resolve_runtime

MILD = PruningConfig((PruningLayer(2, 0.8, 3, 5),), v_min=0.0, v_max=1e6)
HARD = PruningConfig((PruningLayer(1, 0.5, 4, 9), PruningLayer(5, 0.4, 0, 1)), v_min=0.1, v_max=3.0)
CONFIGS = (None, MILD, HARD)


def evaluator(digits: Digits, precision: str = "fp32", batch_size: int = 64) -> Evaluator:
    return digits.job(precision, batch_size).evaluator()


def test_unpruned_predictions_are_those_of_stock_timm_on_normalised_images(digits: Digits) -> None:
    model = copy.deepcopy(digits.loaded.model)
    assert model.__class__.__module__.startswith("timm.")
    mean, std = digits.loaded.data_config["mean"], digits.loaded.data_config["std"]
    pixels = torch.from_numpy(np.array(digits.sets.search.images)).float() / 255
    x = (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    torch.set_num_threads(1)
    with torch.inference_mode():
        logits = torch.cat([model(part) for part in torch.split(x, 64)])
    worker = evaluator(digits)
    seen: list[torch.Tensor] = []
    worker.model.register_forward_hook(lambda _module, _input, output: seen.append(output))
    result = worker.run(None, "search", 0, 160)
    assert torch.equal(torch.cat(seen), logits)
    assert result.predictions.tolist() == logits.argmax(-1).tolist()
    assert result.predictions.dtype == np.int32 and result.fallbacks == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_results_do_not_depend_on_what_ran_before(digits: Digits, precision: str) -> None:
    fresh = [evaluator(digits, precision).run(c, "search", 0, 160) for c in CONFIGS]
    worker = evaluator(digits, precision)
    for index in (2, 1, 0, 2):
        result = worker.run(CONFIGS[index], "search", 0, 160)
        assert result.predictions.tobytes() == fresh[index].predictions.tobytes()
        assert result.fallbacks == fresh[index].fallbacks


def test_blocks_of_whole_batches_put_together_are_the_whole(digits: Digits) -> None:
    worker = evaluator(digits, batch_size=32)
    for config in CONFIGS:
        whole = worker.run(config, "search", 0, 160)
        parts = [worker.run(config, "search", a, b) for a, b in ((0, 32), (32, 128), (128, 160))]
        together = np.concatenate([part.predictions for part in parts])
        assert together.tobytes() == whole.predictions.tobytes()
        assert sum(part.fallbacks for part in parts) == whole.fallbacks


def test_pruned_predictions_are_those_of_apply(digits: Digits) -> None:
    model = apply(copy.deepcopy(digits.loaded.model), HARD)
    pixels = torch.from_numpy(np.array(digits.sets.holdout.images)).float() / 255
    x = (pixels - 0.5) / 0.5  # the embedded model's mean and standard deviation
    with torch.inference_mode():
        expected = model(x).argmax(-1)
    result = evaluator(digits).run(HARD, "holdout", 0, 64)
    assert result.predictions.tolist() == expected.tolist()


def test_an_image_whose_logits_are_not_finite_is_predicted_as_no_class(digits: Digits) -> None:
    worker = evaluator(digits)
    sound = worker.run(None, "search", 0, 70).predictions

    def spoil(_module: object, _input: object, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        logits[1, 0], logits[3, 9], logits[5, 2] = torch.inf, -torch.inf, torch.nan
        return logits

    worker.model.register_forward_hook(spoil)
    spoilt = worker.run(None, "search", 0, 70).predictions
    expected = sound.copy()
    expected[[1, 3, 5, 65, 67, 69]] = -1  # of both batches
    assert spoilt.tolist() == expected.tolist()


def test_images_without_a_head_left_are_counted_once(digits: Digits) -> None:
    layers = (PruningLayer(1, 0.9, 0, 5), PruningLayer(4, 0.9, 0, 5))
    no_head = PruningConfig(layers, v_min=1e6, v_max=1e7)  # far above every variance
    every_head = PruningConfig(layers, v_min=0.0, v_max=1e7)
    worker = evaluator(digits)
    assert worker.run(no_head, "search", 0, 100).fallbacks == 100
    assert worker.run(every_head, "search", 0, 100).fallbacks == 0
    assert worker.run(None, "search", 0, 100).fallbacks == 0


def test_a_configuration_that_does_not_fit_is_refused_and_leaves_no_trace(digits: Digits) -> None:
    worker = evaluator(digits)
    before = worker.run(MILD, "search", 0, 64).predictions
    with pytest.raises(ConfigError, match="after_block=8"):
        worker.run(PruningConfig((PruningLayer(8, 0.5),)), "search", 0, 64)
    assert worker.run(MILD, "search", 0, 64).predictions.tobytes() == before.tobytes()


def test_images_are_mapped_and_not_copied(digits: Digits) -> None:
    for image_set, images in evaluator(digits).images.items():
        assert isinstance(images, np.memmap) and images.mode == "r", image_set
    assert isinstance(ImageStore.open(digits.sets.search.path).images, np.memmap)


def test_a_runtime_that_this_machine_lacks_is_refused() -> None:
    with pytest.raises(ZtpError, match="fp16 needs a GPU; on a CPU use bf16 or fp32"):
        resolve_runtime("cpu", "fp16", 64, 1)
    if not torch.cuda.is_available():
        with pytest.raises(ZtpError, match="--device cuda needs .*; use --device cpu"):
            resolve_runtime("cuda", "auto", 64, 1)
        assert resolve_runtime("auto", "fp32", 64, 2) == Runtime("cpu", "fp32", 64, 2)
    assert resolve_runtime("cpu", "auto", 64, 1).precision in ("fp32", "bf16")
