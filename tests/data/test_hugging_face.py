"""Images and labels from Hugging Face data sets: from the hub, from parquet, as saved to disk."""

import numpy as np
import pytest
from helpers.pictures import counted_decodes, png, prepared

from ztp_search.data import open_source
from ztp_search.data.hub import hub
from ztp_search.errors import DataError
from ztp_search.settings import DataSpec

decodes = pytest.fixture(counted_decodes)
WNIDS = ["n01440764", "n01443537", "n15075141"]  # outputs 0, 1 and 999 of ImageNet's thousand


@pytest.fixture
def hugging_face(tmp_path, monkeypatch):
    """Makes data sets of the form of timm/mini-imagenet; caches lie in tmp_path, no network."""
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    datasets.disable_progress_bars()

    def make(names=WNIDS, each=2, labels=True, first=0, image="image"):
        number = range(len(names) * each)
        columns = {"id": list(number),
                   image: [{"bytes": png(first + i), "path": None} for i in number]}
        features = {"id": datasets.Value("int64"), image: datasets.Image()}
        if labels:
            columns["label"] = [i // each for i in number]
            features["label"] = datasets.ClassLabel(names=names) if names else None
        return datasets.Dataset.from_dict(columns, datasets.Features(features))

    yield make
    datasets.enable_progress_bars()


def as_on_the_hub(splits, root):
    """Parquet files by split, as `push_to_hub` lays them out."""
    (root / "data").mkdir(parents=True)
    for split, dataset in splits.items():
        dataset.to_parquet(str(root / "data" / f"{split}-00000-of-00001.parquet"))
    return f"hfds/{root}"


def test_a_hugging_face_data_set_with_wnid_classes_maps_to_imagenet(hugging_face, tmp_path):
    splits = {"test": hugging_face(), "train": hugging_face(first=50)}
    source = as_on_the_hub(splits, tmp_path / "mini")
    opened = open_source(DataSpec(source), "test", num_classes=1000)
    assert [opened.read(i) for i in range(6)] == [
        (png(i), label) for i, label in enumerate([0, 0, 1, 1, 999, 999])
    ]
    assert opened.class_names == tuple(WNIDS)
    sets = prepared(source, tmp_path, split="test", num_classes=1000, images=4)
    order = np.random.Generator(np.random.PCG64(0)).permutation(6)
    assert sets.search.names == [f"test/{i}" for i in order[:4]]
    assert set(sets.search.labels.tolist()) <= {0, 1, 999} and sets.unlabelled == ""


def test_a_hugging_face_data_set_is_decoded_once(hugging_face, tmp_path, decodes):
    source = as_on_the_hub({"test": hugging_face()}, tmp_path / "mini")
    first = prepared(source, tmp_path, split="test", num_classes=1000)
    second = prepared(source, tmp_path, split="test", num_classes=1000)
    assert len(decodes) == 5 and first.search.digest == second.search.digest


def test_search_and_holdout_may_be_two_splits(hugging_face, tmp_path):
    splits = {"test": hugging_face(), "train": hugging_face(first=4)}  # 4 and 5 stand in both
    sets = prepared(as_on_the_hub(splits, tmp_path / "mini"), tmp_path, split="test", images=6,
                    holdout_split="train", holdout=4, num_classes=1000)
    assert sorted(sets.holdout.names) == ["train/2", "train/3", "train/4", "train/5"]


def test_what_save_to_disk_wrote_is_read_too(hugging_face, tmp_path):
    import datasets

    hugging_face().save_to_disk(tmp_path / "one")
    opened = open_source(DataSpec(f"hfds/{tmp_path / 'one'}"), None, num_classes=1000)
    assert opened.read(5) == (png(5), 999) and opened.name(5) == "all/5"
    with pytest.raises(DataError, match="has no splits, but got split 'val'; leave `split` out"):
        open_source(DataSpec(f"hfds/{tmp_path / 'one'}"), "val", num_classes=1000)
    splits = datasets.DatasetDict(train=hugging_face(first=50), test=hugging_face())
    splits.save_to_disk(tmp_path / "two")
    spec = DataSpec(f"hfds/{tmp_path / 'two'}")
    for split, first in (("train", 50), ("test", 0), (None, 0)):
        assert open_source(spec, split, num_classes=1000).read(0) == (png(first), 0)
    with pytest.raises(DataError, match="`split` must be one of train, test, but got 'val'"):
        open_source(spec, "val", num_classes=1000)


def test_a_hugging_face_split_that_is_not_there_is_refused(hugging_face, tmp_path):
    source = as_on_the_hub({"test": hugging_face()}, tmp_path / "mini")
    with pytest.raises(DataError, match='Unknown split "val"'):
        open_source(DataSpec(source), "val", num_classes=1000)


def test_a_hugging_face_data_set_without_labels_has_none(hugging_face, tmp_path):
    source = as_on_the_hub({"test": hugging_face(labels=False, image="picture")}, tmp_path / "mini")
    sets = prepared(source, tmp_path, split="test", num_classes=1000)
    assert sets.search.labels.tolist() == [-1, -1, -1]
    assert "has no column of labels" in sets.unlabelled


def test_a_broken_row_is_named(hugging_face, tmp_path):
    dataset = hugging_face().cast_column("image", __import__("datasets").Image(decode=False))
    rows = dataset.to_list()
    rows[3]["image"]["bytes"] = b"nothing"
    rows[4]["image"] = None
    broken = dataset.from_list(rows, features=hugging_face().features)
    source = as_on_the_hub({"test": broken}, tmp_path / "mini")
    opened = open_source(DataSpec(source), "test", num_classes=1000)
    with pytest.raises(DataError, match="test/4 cannot be read: the row has no image"):
        opened.read(4)
    with pytest.raises(DataError, match="test/[34] cannot be"):
        prepared(source, tmp_path, split="test", num_classes=1000, images=4)
    sets = prepared(source, tmp_path, split="test", num_classes=1000, images=3, holdout=1,
                    skip_unreadable=True)
    assert sorted(sets.search.names + sets.holdout.names) == [f"test/{i}" for i in (0, 1, 2, 5)]
    assert sets.unreadable == 2


def test_a_data_set_without_images_is_refused_with_its_columns(hugging_face, tmp_path):
    dataset = hugging_face().remove_columns("image")
    source = as_on_the_hub({"test": dataset}, tmp_path / "mini")
    with pytest.raises(DataError, match="must have a column of images, .* are id, label"):
        open_source(DataSpec(source), "test", num_classes=1000)


def test_labels_that_the_model_does_not_have_are_refused_by_name(hugging_face, tmp_path):
    import datasets

    numbers = hugging_face().cast_column("label", datasets.Value("int64"))
    opened = open_source(DataSpec(as_on_the_hub({"test": numbers}, tmp_path / "mini")), "test",
                         num_classes=2)
    assert opened.read(3)[1] == 1
    with pytest.raises(DataError, match=r"lie in 0\.\.1, but .* test/4 has 2; give a `class_map`"):
        opened.read(4)


def test_the_hidden_labels_of_published_test_splits_are_unknown(hugging_face, tmp_path):
    hidden = hugging_face().remove_columns("label").add_column("label", [-1, 0, -1, 1, 2, -1])
    source = as_on_the_hub({"test": hidden}, tmp_path / "mini")
    opened = open_source(DataSpec(source), "test", num_classes=3)
    assert [opened.read(i)[1] for i in range(6)] == [None, 0, None, 1, 2, None]


def in_cache(splits, root):
    """Lay out parquet files as the hub's client caches data set owner/name."""
    commit = "0" * 40
    repository = root / "hub" / "datasets--owner--name"
    as_on_the_hub(splits, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return repository / "snapshots" / commit / "data"


def test_of_a_data_set_on_the_hub_only_the_split_asked_for_is_fetched(
    hugging_face, tmp_path, monkeypatch
):
    import huggingface_hub

    asked = []
    real = huggingface_hub.snapshot_download

    def download(*args, **options):
        asked.append(options["allow_patterns"])
        return real(*args, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    in_cache({"test": hugging_face()}, tmp_path)  # no train split anywhere
    opened = open_source(DataSpec("hfds/owner/name"), "test", num_classes=1000)
    assert [opened.read(i) for i in (0, 2, 5)] == [(png(0), 0), (png(2), 1), (png(5), 999)]
    assert opened.name(5) == "test/5" and opened.class_names == tuple(WNIDS)
    again = open_source(DataSpec("hfds/owner/name"), "test", num_classes=1000)
    assert again.fingerprint == opened.fingerprint
    assert asked == ["data/test-?????-of-?????.parquet"] * 2


def test_shards_of_another_split_or_of_half_a_download_are_not_the_split(hugging_face, tmp_path):
    data = in_cache({"test": hugging_face()}, tmp_path)
    with pytest.raises(DataError, match="owner/name train is neither in the cache nor"):
        open_source(DataSpec("hfds/owner/name"), "train", num_classes=1000)
    (data / "test-00000-of-00001.parquet").rename(data / "test-00000-of-00002.parquet")
    with pytest.raises(DataError, match="owner/name test is neither in the cache nor"):
        open_source(DataSpec("hfds/owner/name"), "test", num_classes=1000)


def test_without_network_and_cache_one_line_says_what_to_do(hugging_face):
    with pytest.raises(DataError) as caught:
        open_source(DataSpec("hfds/timm/mini-imagenet"), "test", num_classes=1000)
    text = str(caught.value)
    assert "\n" not in text and "hfds/timm/mini-imagenet test" in text
    for part in ("`data`", "`weights`", "ztp-search --space digits --budget 68%"):
        assert part in text


def test_a_hub_that_does_not_answer_is_not_asked_again_and_again(hugging_face, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with hub() as answers:
        assert not answers and constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
    with pytest.raises(DataError, match="nor can the Hugging Face hub be reached"):
        open_source(DataSpec("hfds/timm/mini-imagenet"), "test", num_classes=1000)
