"""The model runner: what stock timm says, whatever ran before, however images are cut up."""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Digits
from helpers.small_vits import make

import ztp_search.evaluation.model_runner
from ztp_search.backbones import apply
from ztp_search.data import ImageStore
from ztp_search.errors import ConfigError, ZtpError
from ztp_search.evaluation.image_range import ImageRange
from ztp_search.evaluation.model_runner import Clock, ModelRunner, RangeResult
from ztp_search.evaluation.runtime import Runtime, resolve_runtime
from ztp_search.objectives import OBJECTIVES
from ztp_search.pruning.config import PruningConfig, PruningLayer

MILD = PruningConfig((PruningLayer(2, 0.8, 3, 5),), v_min=0.0, v_max=1e6)
HARD = PruningConfig((PruningLayer(1, 0.5, 4, 9), PruningLayer(5, 0.4, 0, 1)), v_min=0.1, v_max=3.0)
CONFIGS = (None, MILD, HARD)
LAYERS = (PruningLayer(2, 0.7, 2, 3), PruningLayer(3, 0.6, 0, 2))
MANY = (  # for the small model, whose blocks are four
    PruningConfig(LAYERS, v_min=0.0, v_max=1e6),
    PruningConfig((PruningLayer(2, 1.0, 0, 1), PruningLayer(3, 0.4, 4, 2)), features="value"),
    None,
    PruningConfig((PruningLayer(1, 0.3, 4, 9), PruningLayer(3, 0.4, 0, 1)), features="x"),
    PruningConfig(LAYERS, v_min=0.2, v_max=0.4),  # leaves no head for some images
    PruningConfig(LAYERS, v_min=0.0, v_max=1e6),  # the first once more
)
TOO_DEEP = PruningConfig((PruningLayer(4, 0.5),))
HUGE = 1 << 40
Plain = tuple[bytes, int]


def model_runner(digits: Digits, precision: str = "fp32", batch_size: int = 64) -> ModelRunner:
    return digits.job(precision, batch_size).model_runner()


def small(precision: str = "fp32", batch_size: int = 8, cache_bytes: int = 0) -> ModelRunner:
    """A small model with 40 search and 16 holdout images, all different."""
    pixels = np.random.default_rng(0).integers(0, 256, (56, 3, 32, 32), dtype=np.uint8)
    images = {"search": pixels[:40], "holdout": pixels[40:]}
    runtime = Runtime("cpu", precision, batch_size)
    mean, std = (0.5,) * 3, (0.25,) * 3
    return ModelRunner(
        make("class token"), images, mean, std, runtime, OBJECTIVES["top1"], cache_bytes
    )


def one(
    worker: ModelRunner, config: PruningConfig | None, image_set: str, start: int, stop: int
) -> RangeResult:
    (result,) = worker.run([config], ImageRange(image_set, start, stop))
    return result


def plain(results: Sequence[RangeResult]) -> list[Plain]:
    return [(result.predictions.tobytes(), result.fallbacks) for result in results]


def test_unpruned_predictions_are_those_of_stock_timm_on_normalised_images(digits: Digits) -> None:
    model = copy.deepcopy(digits.loaded.model)
    assert model.__class__.__module__.startswith("timm.")
    mean, std = digits.loaded.data_config["mean"], digits.loaded.data_config["std"]
    pixels = torch.from_numpy(np.array(digits.sets.search.images)).float() / 255
    x = (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    torch.set_num_threads(1)
    with torch.inference_mode():
        logits = torch.cat([model(part) for part in torch.split(x, 64)])
    worker = model_runner(digits)
    seen: list[torch.Tensor] = []
    worker.model.register_forward_hook(lambda _module, _input, output: seen.append(output))
    result = one(worker, None, "search", 0, 160)
    assert torch.equal(torch.cat(seen), logits)
    assert result.predictions.tolist() == logits.argmax(-1).tolist()
    assert result.predictions.dtype == np.int32 and result.fallbacks == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_results_do_not_depend_on_what_ran_before(digits: Digits, precision: str) -> None:
    fresh = [one(model_runner(digits, precision), c, "search", 0, 80) for c in CONFIGS]
    worker = model_runner(digits, precision)
    for index in (2, 1, 0, 2):
        result = one(worker, CONFIGS[index], "search", 0, 80)
        assert result.predictions.tobytes() == fresh[index].predictions.tobytes()
        assert result.fallbacks == fresh[index].fallbacks


def test_blocks_of_whole_batches_put_together_are_the_whole(digits: Digits) -> None:
    worker = model_runner(digits, batch_size=32)
    for config in CONFIGS:
        whole = one(worker, config, "search", 0, 112)
        parts = [one(worker, config, "search", a, b) for a, b in ((0, 32), (32, 96), (96, 112))]
        together = np.concatenate([part.predictions for part in parts])
        assert together.tobytes() == whole.predictions.tobytes()
        assert sum(part.fallbacks for part in parts) == whole.fallbacks


def test_pruned_predictions_are_those_of_apply(digits: Digits) -> None:
    model = apply(copy.deepcopy(digits.loaded.model), HARD)
    pixels = torch.from_numpy(np.array(digits.sets.holdout.images)).float() / 255
    x = (pixels - 0.5) / 0.5  # the embedded model's mean and standard deviation
    with torch.inference_mode():
        expected = model(x).argmax(-1)
    result = one(model_runner(digits), HARD, "holdout", 0, 64)
    assert result.predictions.tolist() == expected.tolist()


def test_an_image_whose_logits_are_not_finite_is_predicted_as_no_class(digits: Digits) -> None:
    worker = model_runner(digits)
    sound = one(worker, None, "search", 0, 70).predictions

    def spoil(_module: object, _input: object, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        logits[1, 0], logits[3, 9], logits[5, 2] = torch.inf, -torch.inf, torch.nan
        return logits

    worker.model.register_forward_hook(spoil)
    spoilt = one(worker, None, "search", 0, 70).predictions
    expected = sound.copy()
    expected[[1, 3, 5, 65, 67, 69]] = -1  # of both batches
    assert spoilt.tolist() == expected.tolist()


def test_images_without_a_head_left_are_counted_once(digits: Digits) -> None:
    layers = (PruningLayer(1, 0.9, 0, 5), PruningLayer(4, 0.9, 0, 5))
    no_head = PruningConfig(layers, v_min=1e6, v_max=1e7)  # far above every variance
    every_head = PruningConfig(layers, v_min=0.0, v_max=1e7)
    worker = model_runner(digits)
    assert one(worker, no_head, "search", 0, 100).fallbacks == 100
    assert one(worker, every_head, "search", 0, 100).fallbacks == 0
    assert one(worker, None, "search", 0, 100).fallbacks == 0


def test_a_configuration_that_does_not_fit_is_refused_and_leaves_no_trace(digits: Digits) -> None:
    worker = model_runner(digits)
    before = one(worker, MILD, "search", 0, 64).predictions
    with pytest.raises(ConfigError, match="after_block=8"):
        one(worker, PruningConfig((PruningLayer(8, 0.5),)), "search", 0, 64)
    assert one(worker, MILD, "search", 0, 64).predictions.tobytes() == before.tobytes()


# --- several at a time ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected() -> dict[tuple[str, str], list[Plain]]:
    """MANY on all images of a set, each on a fresh model runner, by precision and set."""
    return {
        (precision, image_set): [
            plain([one(small(precision), config, image_set, 0, images)])[0] for config in MANY
        ]
        for precision in ("fp32", "bf16")
        for image_set, images in (("search", 40), ("holdout", 16))
    }


def test_each_configuration_is_told_its_own_time_and_its_share_of_the_loading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a clock that goes on by itself: by 1, 10, 100 and so on from look to look."""
    looks = itertools.accumulate(10**look for look in range(20))
    clock = Clock(lambda: next(looks), lambda start, stop: stop - start)
    monkeypatch.setitem(ztp_search.evaluation.model_runner.CLOCKS, "cpu", clock)
    worker = small("fp32")
    images = worker.runtime.batch_size + 1  # two batches
    results = worker.run([None, MANY[0]], ImageRange("search", 0, images))
    loading = 10 + 100_000
    assert [each.seconds for each in results] == [
        loading / 2 + 100 + 1_000_000, loading / 2 + 1000 + 10_000_000
    ]  # fmt: skip


@pytest.mark.parametrize("cache_bytes", [0, 1, 1_000_000, HUGE])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_several_at_once_are_as_one_at_a_time_in_any_order_with_any_cache(
    expected: dict[tuple[str, str], list[Plain]], precision: str, cache_bytes: int
) -> None:
    worker = small(precision, cache_bytes=cache_bytes)
    for order in ((0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (1, 3), (3, 1, 3), (2,), (4, 0, 2)):
        for image_set, images in (("search", 40), ("holdout", 16)):
            results = worker.run([MANY[index] for index in order], ImageRange(image_set, 0, images))
            assert plain(results) == [expected[precision, image_set][index] for index in order]
            assert all(result.seconds > 0 for result in results)
    search = expected[precision, "search"]
    assert len(set(search)) == 5 and search[0] == search[5]
    assert 0 < search[4][1] < 40


def test_blocks_of_several_put_together_are_the_whole(
    expected: dict[tuple[str, str], list[Plain]]
) -> None:
    worker = small(cache_bytes=HUGE)
    parts = [worker.run(MANY, ImageRange("search", a, b)) for a, b in ((16, 32), (0, 16), (32, 40))]
    for index, (predictions, fallbacks) in enumerate(expected["fp32", "search"]):
        mine = [parts[block][index] for block in (1, 0, 2)]
        assert b"".join(part.predictions.tobytes() for part in mine) == predictions
        assert sum(part.fallbacks for part in mine) == fallbacks


@pytest.mark.parametrize("cache_bytes", [0, HUGE])
def test_logits_that_are_not_finite_are_of_no_class_for_pruned_models_too(cache_bytes: int) -> None:
    worker = small(cache_bytes=cache_bytes)
    sound = worker.run(MANY, ImageRange("search", 0, 13))

    def spoil(_module: object, _input: object, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        logits[2, 4], logits[4, 1] = torch.nan, torch.inf
        return logits

    worker.model.head.register_forward_hook(spoil)
    for result, before in zip(worker.run(MANY, ImageRange("search", 0, 13)), sound, strict=True):
        predictions = before.predictions.copy()
        predictions[[2, 4, 10, 12]] = -1  # of both batches
        assert result.predictions.tolist() == predictions.tolist()


# --- what is kept from one run to the next ---------------------------------------------------


def kept(worker: ModelRunner) -> int:
    return sum(trunk.nbytes for trunk in worker._batches.values())


def test_no_more_than_the_bound_is_kept_after_a_run() -> None:
    unbounded = small(cache_bytes=HUGE)
    unbounded.run(MANY, ImageRange("search", 0, 40))
    unbounded.run(MANY, ImageRange("holdout", 0, 16))
    whole = kept(unbounded)
    assert whole > 0
    for bound in (0, 1, whole // 7, whole // 2, whole - 1, whole):
        worker = small(cache_bytes=bound)
        for configs, (image_set, stop) in itertools.product(
            (MANY, MANY[3:4], (None,), MANY), (("search", 8), ("search", 40), ("holdout", 16))
        ):
            worker.run(configs, ImageRange(image_set, 0, stop))
            assert kept(worker) <= bound
    assert kept(worker) == whole  # which fits


def test_no_more_than_the_bound_is_kept_after_a_run_that_was_refused() -> None:
    worker = small()
    with pytest.raises(ConfigError, match="after_block=4"):
        worker.run([MANY[0], TOO_DEEP], ImageRange("search", 0, 8))
    assert kept(worker) == 0


def stems(worker: ModelRunner) -> list[Any]:
    """One entry for every batch from now on that is run from its pixels."""
    seen: list[Any] = []
    worker.model.patch_embed.register_forward_hook(lambda *_: seen.append(1))
    return seen


def test_what_is_kept_is_not_run_again_until_it_is_forgotten() -> None:
    worker = small(cache_bytes=HUGE)
    seen = stems(worker)
    for indices, image_set, batches in [
        ((0, 3), "search", 2),
        ((3, 1, 0), "search", 0),
        ((3,), "holdout", 2),
        ((3,), "search", 0),
        ((4,), "holdout", 0),
    ]:
        seen.clear()
        worker.run([MANY[index] for index in indices], ImageRange(image_set, 0, 16))
        assert len(seen) == batches
    assert kept(worker) > 0
    worker.clear_cache()
    assert kept(worker) == 0
    worker.run(MANY[:2], ImageRange("search", 0, 16))
    assert len(seen) == 2


def test_the_batch_that_was_not_used_for_longest_is_forgotten_first() -> None:
    first = small(cache_bytes=HUGE)
    first.run(MANY[:1], ImageRange("search", 0, 8))
    worker = small(cache_bytes=2 * kept(first))  # two batches
    seen = stems(worker)
    for start, runs in ((0, 1), (8, 1), (0, 0), (16, 1), (0, 0), (8, 1), (16, 1)):
        seen.clear()
        worker.run(MANY[:1], ImageRange("search", start, start + 8))
        assert len(seen) == runs, start


# --- the machine ----------------------------------------------------------------------------


def test_images_are_mapped_and_not_copied(digits: Digits) -> None:
    for image_set, images in model_runner(digits).images.items():
        assert isinstance(images, np.memmap) and images.mode == "r", image_set
    assert isinstance(ImageStore.open(digits.sets.search.path).images, np.memmap)


def test_a_runtime_that_this_machine_lacks_is_refused() -> None:
    with pytest.raises(ZtpError, match="fp16 needs a GPU; on a CPU use bf16 or fp32"):
        resolve_runtime("cpu", "fp16", 64, 1)
    if not torch.cuda.is_available():
        with pytest.raises(ZtpError, match="`device` cuda needs .*; use `device` cpu"):
            resolve_runtime("cuda", "auto", 64, 1)
        assert resolve_runtime("auto", "fp32", 64, 2) == Runtime("cpu", "fp32", 64, 2)
    assert resolve_runtime("cpu", "auto", 64, 1).precision in ("fp32", "bf16")


TARGETS = np.random.default_rng(1).dirichlet(np.ones(10), 160).astype(np.float32)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_losses_are_half_the_differences_from_the_targets(digits: Digits, precision: str) -> None:
    worker = model_runner(digits, precision)
    worker.targets["search"] = TARGETS
    seen: list[torch.Tensor] = []
    worker.model.register_forward_hook(lambda _module, _input, output: seen.append(output))
    result = one(worker, None, "search", 0, 160)
    outputs = torch.softmax(torch.cat(seen).double(), -1).numpy()
    expected = [0.5 * sum(abs(p - q)) for p, q in zip(outputs, TARGETS, strict=True)]
    assert result.losses is not None and result.losses.dtype == np.uint16
    np.testing.assert_allclose(result.losses / 65535, expected, atol=2e-5)
    assert one(worker, MILD, "holdout", 0, 64).losses is None  # no targets for these


def test_losses_depend_on_nothing_but_image_and_configuration(digits: Digits) -> None:
    worker = model_runner(digits, batch_size=32)
    worker.targets["search"] = TARGETS
    for config in CONFIGS:
        together, *_ = worker.run([config, *CONFIGS], ImageRange("search", 32, 96))
        parts = [one(worker, config, "search", a, b).losses for a, b in ((32, 64), (64, 96))]
        apart = [part.tobytes() for part in parts if part is not None]
        assert together.losses is not None and together.losses.tobytes() == b"".join(apart)


def test_outputs_that_are_not_finite_have_the_highest_loss(digits: Digits) -> None:
    worker = model_runner(digits)
    worker.targets["search"] = TARGETS
    spoiled = torch.tensor([float("nan"), float("inf"), -float("inf")]).repeat(22)[:64]

    def spoil(_module: object, _input: object, output: torch.Tensor) -> torch.Tensor:
        output[:, 3] = spoiled
        return output

    worker.model.register_forward_hook(spoil)
    losses = one(worker, None, "search", 0, 64).losses
    assert losses is not None and (losses == 65535).all()


def test_the_unpruned_model_returns_its_distributions_where_they_are_asked_for(
    digits: Digits,
) -> None:
    worker = model_runner(digits)
    assert one(worker, None, "search", 0, 64).distributions is None
    worker.distributions = True
    unpruned, pruned = worker.run([None, MILD], ImageRange("search", 0, 64))
    assert pruned.distributions is None and unpruned.distributions is not None
    assert unpruned.distributions.shape == (64, 10) and unpruned.distributions.dtype == np.float32
    np.testing.assert_allclose(unpruned.distributions.sum(1), 1, atol=1e-6)
    worker.targets["search"] = unpruned.distributions
    again, pruned = worker.run([None, MILD], ImageRange("search", 0, 64))
    assert again.losses is not None and not again.losses.any()
    assert pruned.losses is not None and pruned.losses.any()
