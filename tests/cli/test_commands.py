"""The command line: what each command prints, refuses and leaves behind."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Digits, Finished
from helpers.pictures import folder_of
from helpers.running import (
    SEARCH,
    TRIALS,
    argv_of,
    attributes,
    complete,
    completions,
    descendants,
    document,
    gone,
    one_line,
    process,
    ranked,
    stored,
    until,
)

import ztp_search.cli.main
import ztp_search.evaluation.ray_cluster
from ztp_search.cli.commands import COMMANDS
from ztp_search.cli.main import main
from ztp_search.cli.output import print_result
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.results.tables import best_table, layer_table
from ztp_search.space import load_space
from ztp_search.study.packing import unpack_bits

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process: exit status, stdout, stderr."""

    def call(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(argv)
        return status, *capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "best.json"
    assert main(["export", "--out", str(finished.out), "-o", str(path)]) == 0
    return path


def written(folder: Path, layers: list[dict[str, Any]], **more: Any) -> str:
    """A configuration file by hand."""
    path = folder / "config.json"
    content = {"format": "ztp-search/pruning-config", "version": 1, "config": {"layers": layers}}
    path.write_text(json.dumps({**content, **more}))
    return str(path)


# ---- results -----------------------------------------------------------------------------


def test_search_prints_one_document_with_the_agreed_names(finished: Finished, cli: Run) -> None:
    status, out, err = cli(*finished.argv, "--json")  # finished: evaluates nothing
    assert status == 0
    search = document(out)
    assert search.keys() == {
        "study", "storage", "trials", "image_evaluations", "racing", "seconds", "best", "holdout"
    }  # fmt: skip
    assert search["trials"] == {"complete": TRIALS, "pruned": 0, "failed": 0, "running": 0}
    assert search["holdout"].keys() >= {"unpruned", "paper_schedule", "tome", "candidates"}
    assert len(search["holdout"]["candidates"]) == 3
    best = search["best"]
    assert best.keys() == {
        "format", "version", "model", "config", "tokens", "gflops", "evidence", "provenance"
    }  # fmt: skip
    assert best["gflops"].keys() == {"total", "backbone", "overhead", "unpruned"}
    assert best["evidence"]["holdout"].keys() >= {
        "images", "top1", "unpruned_top1", "paper_schedule_top1", "tome_top1", "paired_ci95"
    }  # fmt: skip
    by_number = {trial.number: trial for trial in stored(finished.out)}
    for each in (best["provenance"], *search["holdout"]["candidates"]):
        attrs = by_number[each["trial"]].attrs
        assert each.get("hand_set") == attrs.get("hand_set")
    assert best["provenance"].keys() >= {
        "study", "trial", "seed", "space_sha256", "data", "versions"
    }  # fmt: skip
    assert "Traceback" not in err


def test_search_prints_the_comparison_as_a_table(finished: Finished, cli: Run) -> None:
    status, out, err = cli(*finished.argv)
    assert status == 0
    words = " ".join(out.split())
    holdout = finished.document["holdout"]
    labels = {"paper_schedule": "paper's", "tome": "ToMe's"}
    for candidate in holdout["candidates"]:
        known = candidate.get("hand_set", "").split(" ")[0]
        name = f"trial {candidate['trial']}" + (f", {labels[known]}" if known else "")
        assert name in words
        for baseline in labels:  # the interval stands below the difference
            low, high = candidate[f"minus_{baseline}_ci95"]
            assert f"{100 * candidate[f'minus_{baseline}']:+.2f}" in words
            assert f"[{100 * low:+.2f}, {100 * high:+.2f}]" in words
    assert any("hand_set" in candidate for candidate in holdout["candidates"])
    assert "unpruned" in words and "− paper's" in words and "− ToMe's" in words
    assert holdout["verdict"].split(" (")[0][1:] in words
    assert f"{TRIALS} complete trials" in words
    assert "loading the model" in err and "loading the model" not in out


def test_best_lists_trials_in_order_of_their_scores(finished: Finished, cli: Run) -> None:
    status, out, err = cli("best", "--out", str(finished.out), "-n", "4", "--json")
    assert (status, err) == (0, "")
    trials = document(out)["trials"]
    assert [trial["trial"] for trial in trials] == [t.number for t in ranked(finished.out)[:4]]
    assert ["holdout" in trial["evidence"] for trial in trials] == [True] * 3 + [False]
    status, out, _ = cli("best", "--out", str(finished.out), "-n", "4")
    best = trials[0]["evidence"]["search"]["top1"]
    assert status == 0 and f"{100 * best:.2f}" in out


def test_cost_counts_as_fvcore_does(exported: Path, finished: Finished, cli: Run) -> None:
    status, out, err = cli("cost", str(exported), "--json")
    assert (status, err) == (0, "")
    cost = document(out)
    assert cost["fvcore_gflops"] == cost["gflops"]["total"]
    assert cost["gflops"] == finished.document["best"]["gflops"]
    assert cost["tokens"] == finished.document["best"]["tokens"]
    assert [block["tokens"] for block in cost["blocks"]] == cost["tokens"][:-1]
    overhead = sum(block["overhead"] for block in cost["blocks"])
    assert overhead == pytest.approx(cost["gflops"]["overhead"], rel=1e-12)
    status, out, _ = cli("cost", str(exported))
    assert status == 0 and "fvcore" in out


def test_spaces_lists_what_is_shipped(cli: Run) -> None:
    status, out, _ = cli("spaces", "--json")
    names = [space["name"] for space in document(out)["spaces"]]
    assert status == 0 and {"digits", "deit_small", "any"} <= set(names)
    status, out, _ = cli("spaces")
    assert status == 0 and all(name in out for name in names)


# ---- the exported file ---------------------------------------------------------------------


def test_the_exported_file_alone_reproduces_its_accuracy(
    exported: Path, finished: Finished, cli: Run, tmp_path: Path
) -> None:
    file = json.loads(exported.read_text())
    assert file == finished.document["best"]
    table = tmp_path / "predictions.csv"
    status, out, _ = cli(
        "evaluate", str(exported), "--workers", "0", "--out", str(tmp_path), "--json",
        "--predictions", str(table),
    )  # fmt: skip
    assert status == 0
    measured = document(out)
    evidence = file["evidence"]["holdout"]
    assert measured["top1"] == evidence["top1"]
    assert measured["unpruned_top1"] == evidence["unpruned_top1"]
    assert measured["agreement"] == evidence["agreement"]
    assert measured["images"] == 64 and measured["gflops"] == file["gflops"]
    assert measured["images_per_second"] > 0
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == len({row["image"] for row in rows}) == 64
    right = [row["label"] == row["prediction"] for row in rows]
    assert sum(right) / 64 == evidence["top1"]
    record = next(iter(candidates(finished, file)))
    assert right == unpack_bits(record["correct"], 64).tolist()
    unpruned = [row["label"] == row["unpruned_prediction"] for row in rows]
    assert sum(unpruned) / 64 == evidence["unpruned_top1"]


def test_the_search_images_of_the_file_can_be_measured_too(
    exported: Path, finished: Finished, cli: Run
) -> None:
    argv = ["--image-set", "search", "--workers", "0", "--out", str(finished.out), "--json"]
    status, out, _ = cli("evaluate", str(exported), *argv)
    evidence = finished.document["best"]["evidence"]["search"]
    assert status == 0 and document(out)["top1"] == evidence["top1"]


def test_load_config_and_apply_give_the_stored_results(
    exported: Path, finished: Finished, digits: Digits
) -> None:
    import copy

    from ztp_search.data import prepare
    from ztp_search.settings import DataSpec

    sets = prepare(
        DataSpec("digits", "search", "holdout", None), digits.loaded.data_config, images=96,
        holdout=64, seed=0, num_classes=10, cache_dir=finished.out / "images",
    )  # fmt: skip
    model = copy.deepcopy(digits.loaded.model)
    assert ztp_search.apply(model, ztp_search.load_config(exported)) is model
    pixels = torch.from_numpy(np.array(sets.holdout.images)).float() / 255
    torch.set_num_threads(1)
    with torch.inference_mode():
        x = (pixels - 0.5) / 0.5  # the embedded model's mean and standard deviation
        predictions = torch.cat([model(part) for part in torch.split(x, 32)]).argmax(-1).numpy()
    (record,) = candidates(finished, json.loads(exported.read_text()))
    expected = unpack_bits(record["correct"], 64)
    assert (predictions == sets.holdout.labels).tolist() == expected.tolist()


def candidates(finished: Finished, file: dict[str, Any]) -> list[dict[str, Any]]:
    """The holdout record of the file's configuration."""
    config = ztp_search.pruning.config.PruningConfig.from_dict(file["config"])
    return [attributes(finished.out)["holdout"]["candidates"][config.digest()]]


def test_any_complete_trial_can_be_exported(finished: Finished, cli: Run) -> None:
    status, out, _ = cli("export", "--out", str(finished.out), "--trial", "2")
    assert status == 0
    file = document(out)
    trial = stored(finished.out)[2]
    assert file["config"] == trial.config.to_dict() and file["provenance"]["trial"] == 2
    assert file["evidence"]["search"]["top1"] == trial.value


# ---- the user's mistakes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--space", "digits"], "--budget"),
        (["--budget", "68%", "--space", "nothing"], "nothing"),
        (["--budget", "68%", "--spase", "digits"], "--spase"),
        (["--budget", "1%", "--space", "digits"], "budget"),
        (["--budget", "much", "--space", "digits"], "budget"),
        (["--budget", "0", "--space", "digits"], "budget"),
        (["--budget", "150%", "--space", "digits"], "budget"),
        (["--budget", "68%", "--space", "digits", "--trials", "0"], "--trials"),
        (["--budget", "68%", "--space", "digits", "--images", "-3"], "--images"),
        (["--budget", "68%", "--space", "digits", "--timeout", "soon"], "--timeout"),
        (["--budget", "68%", "--space", "digits", "--tolerance", "nan"], "--tolerance"),
        (["--budget", "68%", "--space", "digits", "--gpus-per-worker", "nan"], "--gpus-per"),
        (["--budget", "68%", "--space", "digits", "--precision", "fp64"], "--precision"),
        (["--budget", "68%", "--space", "digits", "--method", "tome"], "--method"),
        (["--budget", "68%", "--space", "digits", "--precision", "fp16", "--device", "cpu"],
         "use bf16 or fp32"),
        (["--budget", "68%", "--space", "digits", "--storage", "ftp://u:secret@h/d"], "storage"),
        (["--budget", "68%", "--space", "any"], "--model"),
        (["--budget", "68%", "--model", "no_such_vit", "--data", "."], "no_such_vit"),
        (["--budget", "68%", "--space", "digits", "--weights", "/no/such/file"], "/no/such/file"),
        (["--budget", "68%", "--space", "digits", "--data", "/no/such/folder"], "/no/such/folder"),
        (["--budget", "68%", "--space", "digits", "--class-map", "/no/map"], "/no/map"),
        (["sarch", "--budget", "68%"], "'sarch' is no command"),
        (["best"], "run a search first"),
        (["best", "-n", "0"], "-n"),
        (["export", "--format", "tflite"], "--format"),
        (["export", "--trial", "x"], "--trial"),
        (["evaluate"], "CONFIG"),
        (["evaluate", "/no/such.json"], "/no/such.json"),
        (["cost", "/no/such.json"], "/no/such.json"),
        (["visualize", "-o", "a.png"], "CONFIG"),
        (["visualize", "a.json"], "--output"),
        (["visualize", "/no/such.json", "-o", "a.png"], "/no/such.json"),
        (["visualize", "a.json", "-o", "a.png", "--image-numbers", "-1"], "--image-numbers"),
        (["dashboard", "--port", "http"], "--port"),
        (["spaces", "--verbose"], "--verbose"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_status_2(
    argv: list[str], says: str, cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if argv[0].startswith("--") and "--images" not in argv:
        argv = [*argv, "--images", "8", "--holdout", "8", "--workers", "0"]
    status, out, err = cli(*argv)
    *progress, line = err.splitlines()
    assert status == 2 and out == ""
    assert says in one_line(line) and "secret" not in err
    assert all(not text.startswith("Traceback") for text in progress)


def test_an_infeasible_budget_is_refused_with_the_feasible_interval(
    cli: Run, tmp_path: Path
) -> None:
    argv = ["--space", "digits", "--workers", "0", "--out", str(tmp_path), "--images", "8"]
    status, _, err = cli(*argv, "--budget", "0.01")
    assert status == 2
    assert "0.01" in err and "GFLOPs" in err.splitlines()[-1]
    assert not (tmp_path / "studies.db").exists()  # refused before any work


def test_a_trial_or_study_that_is_not_there_is_refused(finished: Finished, cli: Run) -> None:
    status, out, err = cli("export", "--out", str(finished.out), "--trial", "99")
    assert (status, out) == (2, "") and "got 99" in one_line(err)
    status, out, err = cli("best", "--out", str(finished.out), "--study", "other")
    assert (status, out) == (2, "") and "there is s" in one_line(err)


def test_places_that_cannot_be_written_are_refused(
    exported: Path, finished: Finished, cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    under_a_file = str(tmp_path / "file" / "x")
    status, _, err = cli(*argv_of({**SEARCH, "workers": 0, "out": under_a_file}))
    assert status == 2 and under_a_file in one_line(err.splitlines()[-1])
    status, _, err = cli("export", "--out", str(finished.out), "-o", under_a_file)
    assert status == 2 and under_a_file in one_line(err)
    status, _, err = cli(
        "evaluate", str(exported), "--predictions", under_a_file, "--out", str(tmp_path)
    )
    assert status == 2 and under_a_file in one_line(err.splitlines()[-1])


def test_an_export_is_measured_on_other_images(exported: Path, cli: Run, tmp_path: Path) -> None:
    images = folder_of(tmp_path / "images", ["cat", "dog"])
    argv = ["evaluate", str(exported), "--data", str(images), "--workers", "0"]
    argv += ["--images", "6", "--out", str(tmp_path / "out")]
    status, out, _ = cli(*argv, "--json")
    measured = document(out)
    # Their two classes are none of the model's ten, so there is nothing that a top1 could mean.
    assert status == 0 and (measured["images"], measured["image_set"]) == (6, "search")
    assert measured["top1"] is None and 0 <= measured["agreement"] <= 1
    status, table, _ = cli(*argv)
    assert status == 0 and "6 images (search)" in table and "top1" not in table
    assert f"{100 * measured['agreement']:.2f}" in table
    status, _, err = cli(*argv, "--image-set", "holdout")
    assert status == 2 and "--image-set holdout" in one_line(err)


def test_a_file_made_with_other_weights_is_refused(
    exported: Path, finished: Finished, cli: Run, tmp_path: Path
) -> None:
    file = json.loads(exported.read_text())
    file["model"]["weights_sha256"] = "0" * 64
    path = tmp_path / "other.json"
    path.write_text(json.dumps(file))
    status, out, err = cli("evaluate", str(path), "--workers", "0", "--out", str(finished.out))
    assert (status, out) == (2, "") and "give the file's weights" in err.splitlines()[-1]


def test_a_file_by_hand_needs_model_and_images(cli: Run, tmp_path: Path) -> None:
    path = written(tmp_path, [{"after_block": 2, "retention": 0.7}])
    for command in ("cost", "evaluate"):
        status, _, err = cli(command, path)
        assert status == 2 and "give --model" in one_line(err)
    status, out, _ = cli("cost", path, "--model", "deit_tiny_patch16_224", "--json")
    # 0.7 of 196 patch tokens are 137.2, and a class token.
    assert status == 0 and document(out)["tokens"] == [197] * 2 + [138] * 11
    status, _, err = cli("evaluate", path, "--model", "deit_tiny_patch16_224")
    assert status == 2 and "--data" in one_line(err)
    path = written(tmp_path, [{"after_block": 40}])
    status, _, err = cli("cost", path, "--model", "deit_tiny_patch16_224")
    assert status == 2 and "after_block=40" in one_line(err)


def test_passwords_appear_nowhere(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ztp_search.study.outage.FIRST_PATIENCE", 0.0)  # of a search
    url = "postgresql+psycopg://me:hush@127.0.0.1:1/nothing?password=mum"
    argv = ["--images", "8", "--holdout", "8", "--workers", "0", "--out", str(tmp_path)]
    for command, expected in (
        (["best", "--json"], 2),
        (["export"], 2),
        (["--space", "digits", "--budget", "68%", *argv], 1),
    ):
        status, out, err = cli(*command, "--storage", url)
        assert status == expected and "hush" not in out + err and "mum" not in out + err
        assert "postgresql" in one_line(err.splitlines()[-1])


# ---- as a process --------------------------------------------------------------------------


def test_help_of_every_command(cli: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], *([name] for name in COMMANDS if name != "search")):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--help"])
        assert ended.value.code == 0
        out, err = capsys.readouterr()
        assert out.startswith(f"usage: ztp-search {' '.join(command)}".strip()) and err == ""
        assert "%%" not in out


def test_help_comes_without_heavy_imports() -> None:
    code = (
        "import sys, ztp_search.cli.main as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'timm', 'ray', 'optuna'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(
    not Path(sys.executable).with_name("ztp-search").exists(), reason="needs an installed package"
)
def test_the_console_script_prints_one_document(finished: Finished) -> None:
    with process(*finished.argv, "--json", console_script=True) as child:
        out, err = child.communicate()
    assert child.returncode == 0, err
    search = document(out)
    assert search["best"] == finished.document["best"]
    with process("best", "--study", "x", "--out", str(finished.out), console_script=True) as child:
        out, err = child.communicate()
    assert (child.returncode, out) == (2, "") and one_line(err)


def test_a_reader_that_leaves_early_is_no_error(finished: Finished) -> None:
    for command in ("best", "export", "spaces"):
        argv = [command] if command == "spaces" else [command, "--out", str(finished.out)]
        with process(*argv) as child:
            assert child.stdout is not None and child.stderr is not None
            child.stdout.close()  # before a word is out
            assert child.wait() == 0
            assert child.stderr.read() == ""
            child.stdout = None


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=str)
@pytest.mark.parametrize("workers", [0, 1])
def test_who_is_stopped_says_how_to_go_on(workers: int, how: int, tmp_path: Path) -> None:
    argv = argv_of({**SEARCH, "trials": 5000, "workers": workers, "out": tmp_path})
    with process(*argv, "--json") as child:
        until(lambda: complete(tmp_path) >= 1, child)
        below = descendants(child.pid)
        if how == signal.SIGINT:
            os.killpg(child.pid, how)  # as Ctrl-C does
        else:
            os.kill(child.pid, how)
        out, err = child.communicate()
    assert child.returncode == 128 + how and out == ""
    assert "Traceback" not in err
    line = one_line(err.splitlines()[-1])
    assert shlex.split(line.partition("Resume with: ")[2]) == ["ztp-search", *argv, "--json"]
    assert len(completions(tmp_path)) >= 1
    assert gone(below)


@pytest.mark.parametrize(
    ("seconds", "how"),
    [(0.0, signal.SIGTERM), (0.1, signal.SIGINT), (0.3, signal.SIGTERM), (0.6, signal.SIGINT),
     (1.0, signal.SIGTERM), (1.5, signal.SIGINT), (2.0, signal.SIGTERM)],
)  # fmt: skip
def test_who_is_stopped_while_it_starts_says_so_in_one_line(
    seconds: float, how: int, tmp_path: Path
) -> None:
    program = (
        "import sys; from ztp_search.cli.entry import main; "
        "print('here', file=sys.stderr, flush=True); sys.exit(main())"
    )
    argv = argv_of({**SEARCH, "trials": 5000, "workers": 0, "out": tmp_path})
    with subprocess.Popen(
        [sys.executable, "-c", program, *argv], stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        assert child.stderr.readline() == "here\n"
        time.sleep(seconds)
        child.send_signal(how)
        err = child.stderr.read()
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[signal.Signals(how)]
    assert child.returncode in (128 + how, -how)  # or before the first line of `main`
    assert "Traceback" not in err or child.returncode == -how
    assert child.returncode == -how or f"ztp-search: {word}" in err.splitlines()[-1]


WIDE = {
    "objective": "top1", "study": "exp[/data]", "trials": [{
        "trial": 1234, "gflops": {"total": 3.0781}, "config": {"layers": [{"after_block": 3}]},
        "evidence": {
            "search": {"top1": 0.8123, "standard_error": 0.0057},
            "holdout": {"top1": 0.8011, "minus_paper_schedule": -0.1115,
                        "minus_paper_schedule_ci95": [-0.1272, -0.0958], "minus_tome": 0.1014,
                        "minus_tome_ci95": [0.0907, 0.1121]},
        },
    }],
}  # fmt: skip


@pytest.mark.parametrize("columns", ["20", "40", "80", "200"])
def test_a_table_loses_no_number_and_no_name_in_whatever_width(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for terminal in ("0", "1"):
        monkeypatch.setenv("TTY_COMPATIBLE", terminal)
        print_result(WIDE, best_table, False)
        out = capsys.readouterr().out
        assert "…" not in out
        if terminal == "0":  # a file or a pipe: a cell is two lines, and nothing is folded
            differences, intervals = [line for line in out.splitlines() if line.strip()][-2:]
            assert "1234" in differences and "-11.15" in differences and "+10.14" in differences
            assert "[-12.72, -9.58]" in intervals and "[+9.07, +11.21]" in intervals
        assert "exp[/data]" in re.sub(r"\s|\x1b\[[0-9;]*m", "", out)


def test_differences_from_baselines_that_a_study_has_not_are_no_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = json.loads(json.dumps(WIDE))
    holdout = document["trials"][0]["evidence"]["holdout"]
    del holdout["minus_tome"], holdout["minus_tome_ci95"]
    print_result(document, best_table, False)
    out = capsys.readouterr().out
    assert "− paper's" in out and "ToMe" not in out
    del document["trials"][0]["evidence"]["holdout"]
    print_result(document, best_table, False)
    assert "1234" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variants", "heading"),
    [
        ({}, "Best configuration (trial 7): 0.0721 of 0.106 GFLOPs, v_min 0.02, v_max 9.5"),
        ({"similar": "merge", "sizes": "track", "partition": "position", "features": "x"},
         "Best configuration (trial 7): 0.0721 of 0.106 GFLOPs, v_min 0.02, v_max 9.5, "
         "partition position, features x, similar merge, sizes track"),
        ({"variant": "zero-tprune-uni"},
         "Best configuration (trial 7): 0.0721 of 0.106 GFLOPs, v_min 0.02, v_max 9.5, "
         "variant zero-tprune-uni"),
    ],
)  # fmt: skip
def test_the_table_of_layers_says_what_is_merged_and_which_variant_it_is(
    variants: dict[str, str], heading: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    layers = (PruningLayer(2, 0.9, 5, 3, 0.25), PruningLayer(4, 0.7, 0, 9))
    document = {
        "config": PruningConfig(layers, 0.02, 9.5, **variants).to_dict(),
        "gflops": {"total": 0.0721, "unpruned": 0.106},
        "tokens": [101, 101, 86, 86, 61],
        "provenance": {"trial": 7},
    }
    monkeypatch.setenv("COLUMNS", "200")
    print_result(document, layer_table, False)
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines() if line.strip()]
    assert " ".join(lines).startswith(f"{heading} after block")
    header = next(line for line in lines if "after block" in line)
    assert header.endswith("retention s_tokens wpr_iterations merge_share tokens")
    assert "2 0.9000 5 3 0.25 101 → 86" in lines and "4 0.7000 0 9 0.00 86 → 61" in lines


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "localhost:99999"])
def test_an_address_where_nothing_listens_is_one_line_at_once(cli: Run, address: str) -> None:
    status, _, err = cli("--space", "digits", "--budget", "60%", "--address", address)
    assert status == 2
    assert one_line(err).startswith(f"ztp-search: --address {address}: no Ray cluster answers")


def test_a_cluster_that_wants_a_token_is_told_of(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at 127.0.0.1:1\nand more")

    monkeypatch.setattr(ztp_search.evaluation.ray_cluster.ray, "init", init)
    monkeypatch.setattr(ztp_search.evaluation.ray_cluster, "_check_answers", lambda _: None)
    status, _, err = cli("--space", "digits", "--budget", "60%", "--address", "127.0.0.1:1")
    assert status == 2
    assert "(Failed to connect to Ray cluster at 127.0.0.1:1)" in one_line(err)
    assert "set RAY_AUTH_MODE=token" in err


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing slow has begun while this is in force."""

    def started(*_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ztp_search.evaluation.ray_cluster, "connect", started)


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(
    ("option", "value"),
    [("--budget", "50%,much"), ("--weights", "/no/file"), ("--data", "/nope"),
     ("--class-map", "/no/map"), ("--storage", "nope"), ("--storage", "ftp://u:secret@h/d"),
     ("--space", "any"), ("--model-kwargs", "depth")],
)  # fmt: skip
def test_what_the_arguments_alone_show_is_found_before_ray_starts(
    option: str, value: str, cli: Run
) -> None:
    status, _, err = cli("--space", "digits", "--budget", "68%", option, value)
    assert status == 2 and "secret" not in one_line(err)


@pytest.mark.usefixtures("no_ray")
def test_a_model_without_images_is_found_before_ray_starts(cli: Run) -> None:
    status, _, err = cli("--model", "vit_tiny_patch16_384", "--budget", "68%")
    assert status == 2 and "--data is needed" in one_line(err)


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(
    ("changed", "named"),
    [(["--seed", "7"], "seed 0 (now 7)"),
     (["--batch-size", "16"], "runtime.batch_size 32 (now 16)"),
     (["--threads", "3"], "runtime.threads 1 (now 3)"),
     (["--precision", "bf16"], "runtime.precision fp32 (now bf16)"),
     (["--tolerance", "2%"], "budget.tolerance 0.01 (now 0.02)"),
     (["--budget-counts", "backbone"], "budget.counts total (now backbone)"),
     (["--objective", "agreement"], "objective top1 (now agreement)"),
     (["--sampler", "qmc"], "sampler monte-carlo (now qmc)"),
     (["--method", "merge"], "method any (now merge), space {space} (now {merge})"),
     (["--racing", "both"], "racing.rule off (now both)"),
     (["--model-kwargs", "depth=3"], "model.kwargs.depth 8 (now 3)")],
)  # fmt: skip
def test_settings_that_a_study_was_not_made_with_are_named_before_ray_starts(
    changed: list[str], named: str, finished: Finished, cli: Run
) -> None:
    before = (finished.out / "studies.db").read_bytes()
    argv = [word for word in finished.argv if word not in ("--workers", "0")]
    digits = load_space("digits")
    spaces = {"space": digits, "merge": digits.restricted("merge")}
    named = named.format(**{name: f"{each.sha256[:12]}…" for name, each in spaces.items()})
    status, _, err = cli(*argv, *changed)
    assert status == 2 and one_line(err) == (
        f"ztp-search: study 's' was made with other settings: {named}; "
        f"use another --study name, or the old settings"
    )
    assert (finished.out / "studies.db").read_bytes() == before


@pytest.mark.usefixtures("no_ray")
def test_a_finished_search_is_shown_again_without_ray(
    finished: Finished, tmp_path: Path, cli: Run
) -> None:
    out = shutil.copytree(finished.out, tmp_path / "copy")
    status, shown, _ = cli(*argv_of({**SEARCH, "out": out}), "--json")
    again = document(shown)
    for key in ("best", "holdout", "trials", "image_evaluations"):
        assert again[key] == finished.document[key]
    assert status == 0


@pytest.mark.parametrize("argv", [["spaces"], ["spaces", "--json"]])
def test_a_full_disk_is_one_line(argv: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ztp_search.cli.main", *argv],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2 and "stdout cannot be written" in one_line(done.stderr)
