"""The embedded dataset and its model."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from ztp_search.data import digits
from ztp_search.data.digits import SPLITS, DigitScenes, render, scene_numbers, source_indices
from ztp_search.errors import ZtpError

WEIGHTS = Path(digits.__file__).with_name("digits.safetensors")
# The model that tools/train_digits.py trains.
MODEL_KWARGS = {
    "img_size": 40, "patch_size": 4, "embed_dim": 96, "depth": 8, "num_heads": 3,
    "in_chans": 1, "num_classes": 10,
}  # fmt: skip


def numbers(split: str, scenes: int) -> np.ndarray:
    return np.stack([scene_numbers(split, i) for i in range(scenes)])


@pytest.mark.parametrize(
    ("split", "sha256"),
    [
        ("train", "50dcfc8420352eef586b3f43ca7c26082403d6dfa6c0b77771c3318bee19ec86"),
        ("search", "2b5f47745a3afbe44c31f7499a20dc401e6c772139a661ee93d463087beba8f6"),
        ("holdout", "750f45120d142b3da2adce6561bb9d6f4e57fc0ac5d41244fee32b8d36c3c4c1"),
    ],
)
def test_scenes_are_the_same_bytes_everywhere(split: str, sha256: str) -> None:
    scenes = DigitScenes(split)
    digest = hashlib.sha256()
    for index in (0, 1, 2, 1_234, 9_999):
        image, label = scenes[index]
        digest.update(image.tobytes() + bytes([label]))
    assert digest.hexdigest() == sha256


def test_a_scene_does_not_depend_on_the_batch_it_is_rendered_in() -> None:
    images, labels, _ = render("search", numbers("search", 7))
    scenes = DigitScenes("search", 7)
    for index in range(len(scenes)):
        image, label = scenes[index]
        assert np.array_equal(np.asarray(image), images[index])
        assert label == labels[index]


def test_a_scene_does_not_depend_on_the_length_of_the_dataset() -> None:
    short, long = DigitScenes("holdout", 5)[4], DigitScenes("holdout", 50)[4]
    assert short[0].tobytes() == long[0].tobytes() and short[1] == long[1]


def test_splits_share_no_source_digit_and_cover_all_of_them() -> None:
    indices = {split: set(source_indices(split).tolist()) for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not indices[one] & indices[other]
    assert set.union(*indices.values()) == set(range(1_797))


def test_every_split_holds_every_class_in_like_numbers() -> None:
    from sklearn.datasets import load_digits

    labels = load_digits().target
    for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
        counts = np.bincount(labels[source_indices(split)], minlength=10)
        # Dealing n digits in turns of five misses 0.6 n or 0.2 n by 1.2 at most.
        assert np.all(np.abs(counts - share * np.bincount(labels)) <= 1.2 + 1e-9)


def test_images_are_40_pixels_square_and_grey() -> None:
    image, label = DigitScenes("search")[3]
    assert image.size == (40, 40) and image.mode == "L"
    assert type(label) is int


def test_labels_are_balanced() -> None:
    counts = Counter(render("search", numbers("search", 2_000)).labels.tolist())
    assert sorted(counts) == list(range(10))
    # 200 expected, standard deviation 13.4.
    assert all(150 <= count <= 250 for count in counts.values())


def test_difficulty_zero_is_a_clean_centred_digit() -> None:
    images, _, target = render("train", numbers("train", 50), difficulty=0.0)
    assert np.all(images[target == 0.0] == 0)
    across, down = target.mean(1), target.mean(2)  # (50, 40)
    for profile in (across, down):
        centre = profile @ (np.arange(40) + 0.5) / profile.sum(1)
        assert np.all(np.abs(centre - 20.0) < 6.0)


def test_the_target_always_lies_on_the_canvas() -> None:
    whole = render("search", numbers("search", 500), difficulty=1.0).target
    assert np.all(whole.max((1, 2)) > 0.9)
    ink = whole > 0.5
    patches = ink.reshape(-1, 10, 4, 10, 4).any((2, 4)).sum((1, 2))
    assert 0.15 <= patches.mean() / 100 <= 0.5


def test_there_is_no_scene_past_the_end() -> None:
    assert len(DigitScenes("search", 3)) == 3
    for index in (3, -1):
        with pytest.raises(IndexError):
            DigitScenes("search", 3)[index]


def test_an_unknown_split_is_refused_with_rule_value_and_fix() -> None:
    with pytest.raises(ZtpError, match=r"must be one of train, search, holdout, but got 'test'"):
        DigitScenes("test")
    with pytest.raises(ZtpError, match="but got -1"):
        DigitScenes("search", -1)


def test_the_shipped_weights_name_93_percent_of_holdout_scenes() -> None:
    assert WEIGHTS.stat().st_size <= 5_000_000
    import timm
    import torch
    from safetensors.torch import load_file

    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, **MODEL_KWARGS)
    model.load_state_dict(load_file(WEIGHTS), strict=True)
    model.eval()
    images, labels, _ = render("holdout", numbers("holdout", 1_000))
    pixels = torch.from_numpy(images)[:, None].float() / 127.5 - 1.0  # mean 0.5, std 0.5
    with torch.inference_mode():
        batches = torch.tensor_split(pixels, 10)
        predicted = torch.cat([model(batch).argmax(1) for batch in batches])
    assert (predicted.numpy() == labels).mean() >= 0.93


def test_many_scenes_at_a_time_are_the_scenes_one_by_one() -> None:
    scenes = DigitScenes("search")
    indices = [7, 3, 9_999, 0]
    together = scenes.__getitems__(indices)
    alone = [scenes[index] for index in indices]
    assert [label for _, label in together] == [label for _, label in alone]
    for (one, _), (other, _) in zip(together, alone, strict=True):
        assert one.tobytes() == other.tobytes()
