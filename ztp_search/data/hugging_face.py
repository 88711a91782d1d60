"""Data sets of the Hugging Face hub, or of its client's making, with columns of any name."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from ztp_search.data.hub import OFFLINE_COMMAND, hub, one_line
from ztp_search.data.source import Source, Undecoded
from ztp_search.errors import DataError


class _HuggingFace(Source):
    def __init__(self, title: str, dataset: Any) -> None:
        import datasets

        features = dataset.features
        images = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
        if not images:
            raise DataError(f"{title} must have a column of images, but its columns are "
                            f"{', '.join(features)}")
        labels = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
        self._image = "image" if "image" in images else images[0]
        self._target = "label" if "label" in features else (labels[0] if len(labels) == 1 else None)
        columns = [self._image] if self._target is None else [self._image, self._target]
        self._dataset = dataset.select_columns(columns)
        self._dataset = self._dataset.cast_column(self._image, datasets.Image(decode=False))
        super().__init__(
            title, len(dataset), self._dataset._fingerprint,
            class_names=getattr(features.get(self._target), "names", None),
            unlabelled="" if self._target else f"{title} has no column of labels",
        )  # fmt: skip

    def _read(self, index: int) -> tuple[Undecoded, Any]:
        row = self._dataset[index]
        image = row[self._image]
        if image is None:
            raise ValueError("the row has no image")
        encoded = image["bytes"] or Path(image["path"]).read_bytes()
        return encoded, row[self._target] if self._target else None


def open_hugging_face(name: str, split: str | None, _input_mode: str) -> Source:
    """Open a data set of the hub, or a folder that `datasets` can read.

    Args:
        name: On the hub, or path of the folder.
        split: None: a validation or test split, as it is found.

    Raises:
        DataError: It cannot be had, or has no such split.
    """
    import datasets

    saved = any((Path(name) / file).exists() for file in ("dataset_dict.json", "state.json"))
    title = f"hfds/{name}" + (f" {split}" if split else "")
    with contextlib.nullcontext(True) if Path(name).exists() else hub() as answers:
        try:
            if saved:
                found = datasets.load_from_disk(name)
            elif (found := _one_split(name, split)) is None:
                found = datasets.load_dataset(name, split=split)
        except Exception as error:  # whichever of datasets', the hub's and the network's own
            if answers and not isinstance(error, ConnectionError):
                raise DataError(f"{title} cannot be opened: {one_line(error)}") from error
            raise DataError(
                f"{title} is neither in the cache nor can the Hugging Face hub be reached; give "
                f"a folder of images as `data` (and a file as `weights`), or run offline: "
                f"{OFFLINE_COMMAND}"
            ) from error
    if isinstance(found, dict):
        splits = [split] if split else ["validation", "test", *found]
        chosen = next((choice for choice in splits if choice in found), None)
        if chosen is None:
            raise DataError(f"`split` must be one of {', '.join(found)}, but got {split!r}")
        split, found = chosen, found[chosen]
    elif saved and split not in (None, str(found.split)):
        raise DataError(f"hfds/{name} has no splits, but got split {split!r}; leave `split` out")
    return _HuggingFace(f"hfds/{name} {split or found.split or 'all'}", found)


def _one_split(name: str, split: str | None) -> Any:
    """One split of a repository that `push_to_hub` made; None for any other repository.

    `load_dataset` would download and prepare the files of all splits to give one of them.
    """
    import datasets
    from huggingface_hub import errors, snapshot_download

    if split is None or not split.isidentifier() or Path(name).exists():
        return None
    pattern = f"data/{split}-?????-of-?????.parquet"
    try:
        folder = Path(snapshot_download(name, repo_type="dataset", allow_patterns=pattern))
    except (errors.HFValidationError, errors.LocalEntryNotFoundError,
            errors.RepositoryNotFoundError):
        return None  # `load_dataset` has a cache of its own, and says better what is wrong
    shards = sorted(str(shard) for shard in folder.glob(pattern))
    if not shards or not shards[0].endswith(f"-of-{len(shards):05}.parquet"):
        return None
    found = datasets.load_dataset("parquet", data_files={split: shards}, split=split)
    # Files that know which column is an image know the names of the classes too.
    images = [kind for kind in found.features.values() if isinstance(kind, datasets.Image)]
    return found if images else None
