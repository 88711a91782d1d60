"""Image files as a model sees them: the same pixels as those of a data set."""

from pathlib import Path

import numpy as np
import pytest
from helpers.messages import one_line
from helpers.pictures import CONFIG, folder_of, picture, prepared

from ztp_search.data import read_pictures
from ztp_search.errors import DataError


@pytest.mark.parametrize("channels", [1, 3])
def test_files_have_the_pixels_that_they_have_in_a_data_set(tmp_path: Path, channels: int) -> None:
    config = {**CONFIG, "input_size": [channels, 16, 16]}
    config |= {"mean": [0.5] * channels, "std": [0.5] * channels}
    root = folder_of(tmp_path / "images", ["cat", "dog"])
    store = prepared(root, tmp_path, config=config, images=4, holdout=0).search
    files = [Path(root) / name for name in store.names]
    assert np.array_equal(read_pictures(files, config), store.images)


def test_a_small_file_is_enlarged_and_cropped(tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    picture(1, size=(6, 4)).save(path)
    assert read_pictures([path], CONFIG).shape == (1, 3, 16, 16)


def test_a_file_that_is_no_image_is_refused_in_one_line(tmp_path: Path) -> None:
    text, broken = tmp_path / "notes.txt", tmp_path / "broken.png"
    text.write_text("no image")
    picture(1).save(broken)
    broken.write_bytes(broken.read_bytes()[:60])
    for path in (text, broken, tmp_path, tmp_path / "missing.png"):
        with pytest.raises(DataError) as refused:
            read_pictures([path], CONFIG)
        message = one_line(refused)
        assert f"`image` {path}" in message and "give a picture file" in message
