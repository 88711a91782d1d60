"""How to use what was found: the file itself, and commands to copy."""

from __future__ import annotations

import re
import shlex

from ztp_search.results.report.blocks import Attached, Code, Section, Words
from ztp_search.results.report.material import Material


def use(of: Material) -> Section:
    if of.result.winner is None:
        return Section("use", "Use", "How to use it", [])
    file = re.sub(r"[^\w.%-]+", "-", of.found.study).strip("-") + ".json"
    return Section(
        "use", "Use", "How to use it",
        [
            Words("The winner's configuration file holds all that other programs need, and the "
                  "evidence for it. It is attached here, and can be had from the study:"),
            Attached(file, of.result.winner.dumps(), "The winner's configuration file"),
            Code("sh", _commands(of, file), "On the command line"),
            Code("python", _python(of, file), "In Python"),
        ],
    )  # fmt: skip


def _commands(of: Material, file: str) -> str:
    study = shlex.join(["--storage", of.found.storage, "--study", of.found.study])
    name = shlex.quote(file)
    return "\n".join(
        (
            f"ztp-search export {study} -o {name}",
            f"ztp-search export {study} --format onnx -o pruned.onnx"
            "   # or python, torch-export, huggingface, yaml, csv …",
            f"ztp-search evaluate {name}                 # measure it again, or with --data on "
            "other images",
            f"ztp-search cost {name}                     # GFLOPs per block",
            f"ztp-search visualize {name} -o tokens.png  # which tokens it drops and merges",
        )
    )


def _python(of: Material, file: str) -> str:
    assert of.winner is not None
    model = of.winner["model"]
    kwargs = "".join(f", {key}={value!r}" for key, value in model.get("kwargs", {}).items())
    weights = ", pretrained=True" if model.get("weights") is None else ""
    load = "" if weights else f"   # and load the weights: {model['weights']}"
    return "\n".join(
        (
            "import timm",
            "import ztp_search",
            "",
            f"model = timm.create_model({model['name']!r}{weights}{kwargs}).eval(){load}",
            f"ztp_search.apply(model, ztp_search.load_config({file!r}))",
            "# model(images) as before, with fewer tokens; apply(model, None) is stock timm again",
        )
    )
