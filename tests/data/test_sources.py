"""Images and labels from folders, tar files, torchvision, WebDataset shards and the package."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from helpers.pictures import CONFIG, cats_and_dogs, folder_of, png, prepared, tar_of

from ztp_search.data import open_source
from ztp_search.errors import DataError
from ztp_search.settings import DataSpec

folder = pytest.fixture(cats_and_dogs)


def test_splits_are_found_as_timm_finds_them(tmp_path):
    folder_of(tmp_path / "images" / "train", ["cat", "dog"], first=0)
    folder_of(tmp_path / "images" / "val", ["cat", "dog"], first=50)
    source = str(tmp_path / "images")
    for split, first in (("train", 0), ("val", 50), ("validation", 50), (None, 50)):
        opened = open_source(DataSpec(source), split, num_classes=2)
        assert opened.read(0) == (png(first), 0)
    for wrong in ("tset", "train[:10]"):
        with pytest.raises(DataError, match="`split` must be a folder .*; it has train, val"):
            open_source(DataSpec(source), wrong, num_classes=2)


def test_a_folder_without_class_folders_has_no_labels(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    opened = open_source(DataSpec(str(tmp_path)), None, num_classes=2)
    assert not opened.labels_are_meaningful and opened.read(0)[1] is None
    sets = prepared(str(tmp_path), tmp_path / "elsewhere")
    assert sets.search.labels.tolist() == [-1, -1, -1]
    assert "has no class folders" in sets.unlabelled


def test_loose_images_beside_class_folders_are_refused_by_name(tmp_path, folder):
    (Path(folder) / "loose.png").write_bytes(png(50))
    with pytest.raises(DataError, match=r"has loose\.png beside class folders"):
        prepared(folder, tmp_path, num_classes=3)


def test_folders_named_by_wnid_map_to_imagenet(tmp_path):
    folder = folder_of(tmp_path / "images", ["n01443537", "n15075141"], each=1)
    sets = prepared(folder, tmp_path, images=1, holdout=1, num_classes=1000)
    found = dict(zip(sets.search.names + sets.holdout.names,
                     [*sets.search.labels, *sets.holdout.labels], strict=True))
    assert found == {"n01443537/0.png": 1, "n15075141/0.png": 999}


def test_a_class_map_says_which_output_a_folder_is(folder, tmp_path):
    (tmp_path / "map.json").write_text('{"cat": 7, "dog": 3}')
    sets = prepared(folder, tmp_path, num_classes=10, class_map=str(tmp_path / "map.json"))
    named = {name.partition("/")[0]: int(label)
             for name, label in zip(sets.search.names, sets.search.labels, strict=True)}
    assert named == {"cat": 7, "dog": 3}


def test_class_folders_that_the_model_does_not_have_leave_no_labels(folder, tmp_path):
    sets = prepared(folder, tmp_path, num_classes=10)
    assert set(sets.search.labels.tolist()) == {-1}
    assert "`class_map` file" in sets.unlabelled


def test_paths_in_an_archive_lead_nowhere(tmp_path):
    """Members are read where they lie, under whatever name, and links are no images."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(9))
    inside = {"cat/../../escaped.png": png(0), "/dog/absolute.png": png(1)}
    tar_of(tmp_path / "images.tar", inside)
    with tarfile.open(tmp_path / "images.tar", "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo(f"dog/link{kind!r}.png")
            link.type, link.linkname = kind, str(secret)
            tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    opened = open_source(DataSpec(str(tmp_path / "images.tar")), None, num_classes=2)
    assert len(opened) == 2 and {opened.read(i)[0] for i in range(2)} == set(inside.values())
    assert sorted(tmp_path.rglob("*")) == before and not (tmp_path.parent / "escaped.png").exists()


def test_a_tar_reads_as_the_folder_it_holds(tmp_path, folder):
    files = {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*.png")}
    tar_of(tmp_path / "images.tar", files)
    opened = open_source(DataSpec(str(tmp_path / "images.tar")), None, num_classes=2)
    read = {opened.name(i): opened.read(i) for i in range(len(opened))}
    assert read == {name: (data, int(name.startswith("dog"))) for name, data in files.items()}
    one = prepared(str(tmp_path / "images.tar"), tmp_path).search
    assert one.digest == prepared(folder, tmp_path).search.digest


def test_a_tar_of_tars_reads_its_inner_files(tmp_path):
    inner = {name: tar_of(tmp_path / f"{name}.tar", {f"{name}.png": png(number)})
             for number, name in enumerate(["cat", "dog"])}
    tar_of(tmp_path / "outer.tar", {f"{name}.tar": data for name, data in inner.items()})
    opened = open_source(DataSpec(str(tmp_path / "outer.tar")), None, num_classes=2)
    assert [opened.read(i) for i in range(2)] == [(png(0), 0), (png(1), 1)]


def test_a_damaged_tar_is_refused_by_name(tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"no images in .*bad\.tar"):
        open_source(DataSpec(str(tmp_path / "bad.tar")), None, num_classes=2)


def test_the_embedded_digits_are_read_from_their_splits(tmp_path):
    config = CONFIG | {"input_size": [1, 40, 40], "mean": [0.5], "std": [0.5], "crop_pct": 1.0}
    sets = prepared("digits", tmp_path, config=config, num_classes=10, holdout_split="holdout")
    assert [name.partition("/")[0] for name in sets.search.names] == ["search"] * 3
    assert [name.partition("/")[0] for name in sets.holdout.names] == ["holdout"] * 2
    image, label = open_source(DataSpec("digits"), None, num_classes=10).read(
        int(sets.search.names[0].partition("/")[2])
    )
    assert np.array_equal(sets.search.images[0, 0], np.asarray(image))  # 40x40 already
    assert sets.search.labels[0] == label


@pytest.mark.parametrize("source", ["nowhere", "owner/name", ""])
def test_a_source_that_is_not_there_is_refused_by_name(source):
    with pytest.raises(DataError, match=f"`data` must be an image folder.*{source!r}"):
        open_source(DataSpec(source), None, num_classes=2)


def test_a_folder_without_images_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=f"no images in {tmp_path}"):
        open_source(DataSpec(str(tmp_path)), None, num_classes=2)


def test_torchvision_data_sets_are_read(folder, tmp_path):
    sets = prepared(f"torch/image_folder/{folder}", tmp_path)
    assert len(sets.search) == 3 and set(sets.search.labels.tolist()) <= {0, 1}
    with pytest.raises(DataError, match="cannot be opened: Dataset not found"):
        open_source(DataSpec(f"torch/cifar10/{tmp_path}"), None, num_classes=10)
    with pytest.raises(DataError, match="write torch/cifar10/FOLDER"):
        open_source(DataSpec("torch/cifar10"), None, num_classes=10)


# webdataset leaves a shard open whose stream is not read to its end.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_shards_are_streamed_in_their_order(tmp_path):
    pytest.importorskip("webdataset")
    files = {}
    for number in range(6):
        files[f"{number}.png"] = b"not an image" if number == 1 else png(number)
        files[f"{number}.cls"] = str(number % 2).encode()
    tar_of(tmp_path / "shard-0.tar", files)
    with pytest.raises(DataError, match=r"shard-0\.tar/1 cannot be read: .*`skip_unreadable`"):
        prepared(f"wds/{tmp_path}", tmp_path, split="shard-0.tar")
    sets = prepared(f"wds/{tmp_path}", tmp_path, split="shard-0.tar", skip_unreadable=True)
    assert sets.search.labels.tolist() == [0, 0, 1] and sets.unreadable == 1
    with pytest.raises(DataError, match="at most the 5 distinct readable images"):
        prepared(f"wds/{tmp_path}", tmp_path, split="shard-0.tar", images=6, skip_unreadable=True)
