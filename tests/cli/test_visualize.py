"""`ztp-search visualize`: one document, one picture, one line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Finished
from helpers.pictures import picture
from helpers.running import document, one_line
from PIL import Image

import ztp_search
from ztp_search import VisualizeSettings
from ztp_search.cli.main import main


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "best.json"
    assert main(["export", "--out", str(finished.out), "-o", str(path)]) == 0
    return path


def test_one_document_says_what_was_drawn(
    exported: Path, finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    output = tmp_path / "tokens.png"
    argv = ["visualize", str(exported), "-o", str(output), "--out", str(finished.out)]
    argv += ["--images", "2", "--importance"]
    assert main([*argv, "--json"]) == 0
    out, err = capsys.readouterr()
    shown = document(out)
    assert f"wrote {output}" in err and Image.open(output).format == "PNG"
    settings = VisualizeSettings(out=finished.out, images=2, importance=True)
    made = ztp_search.visualize(exported, output, settings)
    assert made.to_dict() == shown
    assert shown.keys() == {"output", "model", "importance", "images"}
    best = finished.document["best"]
    for image in shown["images"]:
        assert image.keys() == {"image", "label", "unpruned", "configs"}
        (row,) = image["configs"]
        assert row["config"] == str(exported) and row["gflops"] == best["gflops"]
        tokens = best["tokens"]
        for layer in row["layers"]:
            block = layer["after_block"]
            assert [layer["tokens_in"], layer["tokens_out"]] == tokens[block - 1 : block + 1]
            gone = sum(layer["dropped"].values()) + sum(layer["merged"].values())
            assert gone == layer["tokens_in"] - layer["tokens_out"]
    assert main(argv) == 0
    table = capsys.readouterr().out
    assert "holdout image 1" in table and "best.json" in table
    assert " → ".join(str(n) for n in dict.fromkeys(best["tokens"])) in table


def test_mistakes_are_one_line_and_status_2(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.png"
    picture(0).save(file)
    good = tmp_path / "b.png"
    for argv, says in (
        (["-o", str(tmp_path / "b.jpg")], "--output must end in one of .png, .svg, .pdf"),
        (["-o", str(tmp_path / "no" / "b.png")], "cannot be written"),
        (["-o", str(good), "--image", "/no/such.png"], "--image /no/such.png does not exist"),
        (["-o", str(good), "--image", str(exported)], "cannot be read as an image"),
        (["-o", str(good), "--image", str(file), "--images", "3"], "--images 3 is of a data set"),
        (["-o", str(good), "--images", "4000"], "at most 400 cells"),
    ):
        capsys.readouterr()
        assert main(["visualize", str(exported), *argv, "--out", str(tmp_path / "runs")]) == 2
        out, err = capsys.readouterr()
        assert out == "" and says in one_line(err.splitlines()[-1])
        assert not good.exists()
