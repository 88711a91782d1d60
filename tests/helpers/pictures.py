"""Pictures of noise, in the forms in which data sets hold them, and stores made of them."""

import io
import tarfile

import numpy as np
from PIL import Image

from ztp_search.data import prepare, preprocessing
from ztp_search.settings import DataSpec

CONFIG = {
    "input_size": [3, 16, 16],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
}


def picture(number, size=(24, 20), mode="RGB"):
    """A picture of noise that no other number has."""
    noise = np.random.Generator(np.random.PCG64(number)).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(noise.astype(np.uint8)).convert(mode)


def png(number, **options):
    data = io.BytesIO()
    picture(number, **options).save(data, "PNG")
    return data.getvalue()


def folder_of(root, classes, each=4, first=0):
    """`each` pictures in every class folder, numbered on from `first`."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(each):
            (root / name / f"{index}.png").write_bytes(png(first + number * each + index))
    return str(root)


def tar_of(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path.read_bytes()


def cats_and_dogs(tmp_path):
    """Fixture: a folder with the class folders cat and dog, four pictures in each."""
    return folder_of(tmp_path / "images", ["cat", "dog"])


def prepared(source, tmp_path, *, split=None, holdout_split=None, class_map=None, config=CONFIG,
             **options):  # fmt: skip
    spec = DataSpec(source, split, holdout_split, class_map)
    usual = {"images": 3, "holdout": 2, "seed": 0, "num_classes": 2,
             "cache_dir": tmp_path / "cache"}  # fmt: skip
    return prepare(spec, config, **(usual | options))


def counted_decodes(monkeypatch):
    """Fixture: one entry for each picture that Pillow was asked to open."""
    counted = []
    real = Image.open
    monkeypatch.setattr(preprocessing.Image, "open", lambda *a: (counted.append(1), real(*a))[1])
    return counted
