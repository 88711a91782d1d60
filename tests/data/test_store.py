"""Images decoded once into a store: which ones, their pixels, and what lies on disk."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pictures import CONFIG, cats_and_dogs, counted_decodes, folder_of, png, prepared
from PIL import Image

from ztp_search.data import ImageStore, decoding, normalise, open_source
from ztp_search.errors import DataError
from ztp_search.settings import DataSpec

folder = pytest.fixture(cats_and_dogs)
decodes = pytest.fixture(counted_decodes)


# What is read


def test_pixels_are_those_of_timms_evaluation_transform(folder, tmp_path):
    from timm.data import create_transform

    sets = prepared(folder, tmp_path)
    transform = create_transform(**CONFIG, is_training=False)
    for image, name in zip(sets.search.images, sets.search.names, strict=True):
        with Image.open(Path(folder) / name) as file:
            expected = transform(file.convert("RGB"))
        got = normalise(torch.from_numpy(np.array(image))[None], CONFIG["mean"], CONFIG["std"])[0]
        assert torch.equal(got, expected)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_crop_mode_and_one_channel_follow_timm(folder, tmp_path, mode, channels):
    from timm.data import create_transform

    config = CONFIG | {"crop_mode": mode, "input_size": [channels, 16, 12],
                       "mean": [0.5] * channels, "std": [0.25] * channels}  # fmt: skip
    sets = prepared(folder, tmp_path, config=config)
    assert sets.search.images.shape == (3, channels, 16, 12)
    with Image.open(Path(folder) / sets.search.names[0]) as file:
        expected = create_transform(**config)(file.convert("L" if channels == 1 else "RGB"))
    image = torch.from_numpy(np.array(sets.search.images[:1]))
    assert torch.equal(normalise(image, config["mean"], config["std"])[0], expected)


def test_normalise_by_hand():
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    got = normalise(image, [0.5, 0.2, 0.0], [0.5, 0.1, 2.0])
    torch.testing.assert_close(got.flatten(), torch.tensor([-1.0, 0.0, 0.5]), atol=1e-7, rtol=0)
    assert image.flatten().tolist() == [0, 51, 255]


def test_order_is_the_seeded_permutation_cut_into_search_and_holdout(folder, tmp_path):
    files = [f"{name}/{index}.png" for name in ("cat", "dog") for index in range(4)]
    order = np.random.Generator(np.random.PCG64(7)).permutation(8)
    sets = prepared(folder, tmp_path, seed=7)
    assert sets.search.names == [files[i] for i in order[:3]]
    assert sets.holdout.names == [files[i] for i in order[3:5]]
    labels = [0 if files[i].startswith("cat") else 1 for i in order]
    assert sets.search.labels.tolist() == labels[:3]
    assert sets.holdout.labels.tolist() == labels[3:5]


def test_stores_are_read_only_maps(folder, tmp_path):
    images = prepared(folder, tmp_path).search.images
    assert isinstance(images, np.memmap) and images.dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_no_holdout_is_an_empty_store(folder, tmp_path):
    sets = prepared(folder, tmp_path, images=8, holdout=0)
    assert len(sets.search) == 8 and len(sets.holdout) == 0
    assert sets.holdout.images.shape == (0, 3, 16, 16)


def test_the_same_picture_never_stands_in_both_sets(tmp_path):
    root = tmp_path / "images"
    folder_of(root, ["cat"], each=6)
    shutil.copytree(root / "cat", root / "dog")  # each picture twice
    sets = prepared(str(root), tmp_path, images=4, holdout=2)
    seen = [image.tobytes() for image in (*sets.search.images, *sets.holdout.images)]
    assert len(set(seen)) == 6
    with pytest.raises(DataError, match="at most the 6 distinct readable images"):
        prepared(str(root), tmp_path, images=4, holdout=3)


def test_the_same_picture_never_stands_in_both_splits(tmp_path):
    root = tmp_path / "images"
    folder_of(root / "val", ["cat", "dog"], each=2)
    shutil.copytree(root / "val", root / "test")
    (root / "test" / "cat" / "new.png").write_bytes(png(99))
    sets = prepared(str(root), tmp_path, images=4, holdout=1, split="val", holdout_split="test")
    assert sets.holdout.names == ["cat/new.png"]
    with pytest.raises(DataError, match="`holdout` 2 must be at most the 1 .*; use `holdout` 1"):
        prepared(str(root), tmp_path, images=4, holdout=2, split="val", holdout_split="test")


def test_too_few_images_are_refused_with_numbers_that_would_do(folder, tmp_path, decodes):
    with pytest.raises(DataError, match="`images` 9 . `holdout` 3 must be at most the 8 "
                                        ".*; use `images` 6 and `holdout` 2"):
        prepared(folder, tmp_path, images=9, holdout=3)
    assert not decodes
    with pytest.raises(DataError, match="`images` must be 1 or more"):
        prepared(folder, tmp_path, images=0)


def test_at_most_takes_what_is_left_beside_the_holdout(folder, tmp_path, decodes):
    sets = prepared(folder, tmp_path, images=100, holdout=3, at_most=True)
    plain = prepared(folder, tmp_path / "plain", images=5, holdout=3)
    assert sets.search.digest == plain.search.digest
    assert sets.holdout.digest == plain.holdout.digest
    decodes.clear()
    prepared(folder, tmp_path, images=100, holdout=3, at_most=True)
    assert not decodes
    assert len(prepared(folder, tmp_path, images=4, holdout=3, at_most=True).search) == 4
    with pytest.raises(DataError, match="`images` 1 . `holdout` 8 must be at most the 8 "
                                        ".*; use `images` 1 and `holdout` 7"):
        prepared(folder, tmp_path, images=100, holdout=8, at_most=True)


def test_at_most_of_another_split_leaves_the_holdout_alone(tmp_path):
    root = tmp_path / "images"
    folder_of(root / "val", ["cat", "dog"], each=2)
    folder_of(root / "test", ["cat", "dog"], each=3, first=50)
    sets = prepared(str(root), tmp_path, images=9, holdout=5, at_most=True,
                    split="val", holdout_split="test")  # fmt: skip
    assert len(sets.search) == 4 and len(sets.holdout) == 5


def test_at_most_counts_distinct_readable_images(tmp_path, decodes):
    root = tmp_path / "images"
    folder_of(root, ["cat"], each=6)
    shutil.copytree(root / "cat", root / "dog")  # each picture twice
    sets = prepared(str(root), tmp_path, images=100, holdout=2, at_most=True)
    assert len(sets.search) == 4 and len(sets.holdout) == 2
    decodes.clear()
    again = prepared(str(root), tmp_path, images=100, holdout=2, at_most=True)
    assert again.search.digest == sets.search.digest and not decodes
    with pytest.raises(DataError, match="at most the 6 distinct readable images"):
        prepared(str(root), tmp_path, images=100, holdout=6, at_most=True)


# Broken images


@pytest.fixture
def broken(folder):
    """A folder with one truncated image; its name."""
    path = Path(folder) / "dog" / "2.png"
    path.write_bytes(path.read_bytes()[:-40])
    return "dog/2.png"


def test_a_broken_image_is_named(folder, tmp_path, broken):
    with pytest.raises(DataError, match=f"{broken} cannot be decoded: .*`skip_unreadable`"):
        prepared(folder, tmp_path, images=8, holdout=0)
    assert not any((tmp_path / "cache").iterdir())


def test_a_broken_image_is_passed_over_on_request_and_counted(folder, tmp_path, broken):
    sets = prepared(folder, tmp_path, images=6, holdout=1, skip_unreadable=True)
    assert sets.unreadable == 1
    assert broken not in sets.search.names + sets.holdout.names
    # The images before and after it stand in the order they would have without it.
    files = [f"{name}/{index}.png" for name in ("cat", "dog") for index in range(4)]
    order = [files[i] for i in np.random.Generator(np.random.PCG64(0)).permutation(8)]
    assert sets.search.names + sets.holdout.names == [name for name in order if name != broken]


def test_a_store_made_without_a_broken_image_is_refused_where_that_is_not_asked_for(
    folder, tmp_path, broken
):
    prepared(folder, tmp_path, images=6, holdout=1, skip_unreadable=True)
    with pytest.raises(DataError, match=f"{broken} cannot be decoded: .*`skip_unreadable`"):
        prepared(folder, tmp_path, images=6, holdout=1)


def test_an_image_that_vanished_is_named(folder, tmp_path):
    opened = open_source(DataSpec(folder), None, num_classes=2)
    os.remove(Path(folder) / "cat" / "1.png")
    with pytest.raises(DataError, match=r"cat/1\.png cannot be read: .*No such file"):
        opened.read(1)


def test_a_broken_image_that_nobody_asked_for_does_no_harm(folder, tmp_path):
    order = np.random.Generator(np.random.PCG64(0)).permutation(8)
    files = [f"{name}/{index}.png" for name in ("cat", "dog") for index in range(4)]
    (Path(folder) / files[order[5]]).write_bytes(b"")
    assert prepared(folder, tmp_path, images=3, holdout=2).unreadable == 0


# The store on disk


def test_the_second_run_decodes_nothing(folder, tmp_path, decodes):
    first = prepared(folder, tmp_path)
    assert len(decodes) == 5
    second = prepared(folder, tmp_path)
    assert len(decodes) == 5
    assert second.search.digest == first.search.digest
    assert np.array_equal(second.search.images, first.search.images)
    assert second.search.names == first.search.names


def test_a_changed_image_is_decoded_again(folder, tmp_path, decodes):
    name = prepared(folder, tmp_path).search.names[0]
    (Path(folder) / name).write_bytes(png(77))
    prepared(folder, tmp_path)
    assert len(decodes) == 10


def test_progress_counts_up_to_all_images(folder, tmp_path):
    seen = []
    prepared(folder, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_what_a_killed_process_left_is_not_taken_for_a_store(folder, tmp_path, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt  # then nothing below runs, as after a kill

    monkeypatch.setattr(decoding.os, "rename", killed)
    monkeypatch.setattr(decoding.shutil, "rmtree", lambda *args, **options: None)
    with pytest.raises(KeyboardInterrupt):
        prepared(folder, tmp_path)
    monkeypatch.undo()
    (left,) = (tmp_path / "cache").iterdir()
    assert left.name.startswith(".") and (left / "holdout").exists()
    assert len(prepared(folder, tmp_path).search) == 3
    os.utime(left, (0, 0))  # made long ago, but still written to
    prepared(folder, tmp_path, seed=1)
    assert left.exists()
    for path in (*left.rglob("*"), left):
        os.utime(path, (0, 0))  # long ago: swept by the next run that writes
    prepared(folder, tmp_path, seed=2)
    assert not left.exists()


def test_two_processes_that_make_the_same_store_do_not_disturb_each_other(folder, tmp_path):
    seen = []

    def another(done, total):
        if done == 3:
            seen.append(prepared(folder, tmp_path).search.digest)

    assert prepared(folder, tmp_path, progress=another).search.digest == seen[0]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_digest_follows_content_and_order_and_not_the_place(folder, tmp_path):
    def digest(source, **options):
        return prepared(source, tmp_path, images=8, holdout=0, **options).search.digest

    base = digest(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert digest(str(tmp_path / "copy")) == base
    assert digest(folder, seed=1) != base
    for key, value in (("crop_pct", 0.8), ("interpolation", "bilinear"), ("std", [1.0, 1.0, 1.0])):
        assert digest(folder, config=CONFIG | {key: value}) != base
    (tmp_path / "map.txt").write_text("dog\ncat\n")
    assert digest(folder, class_map=str(tmp_path / "map.txt")) != base
    (tmp_path / "copy" / "cat" / "0.png").write_bytes(png(77))
    assert digest(str(tmp_path / "copy")) != base


def test_a_store_opens_by_its_path(folder, tmp_path):
    search = prepared(folder, tmp_path).search
    opened = ImageStore.open(search.path)
    assert len(opened) == 3 and opened.digest == search.digest
    assert np.array_equal(opened.images, search.images)


@pytest.mark.parametrize("file", ["about.json", "images.npy", "labels.npy"])
def test_a_damaged_store_is_named(folder, tmp_path, file):
    path = prepared(folder, tmp_path).search.path
    data = (path / file).read_bytes()
    (path / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=f"the image store {path} is damaged .*delete it"):
        prepared(folder, tmp_path)


def test_a_store_of_another_version_is_refused(folder, tmp_path):
    path = prepared(folder, tmp_path).search.path
    about = json.loads((path / "about.json").read_text())
    (path / "about.json").write_text(json.dumps(about | {"version": 99}))
    with pytest.raises(DataError, match="version must be 1, but got 99"):
        ImageStore.open(path)


def test_a_cache_folder_that_cannot_be_written_is_named(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written to .*Not a directory"):
        prepared(folder, tmp_path, cache_dir=tmp_path / "file" / "cache")
