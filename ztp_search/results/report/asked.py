"""What was asked for, and where the results come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.cost import flops
from ztp_search.pruning.geometry import Geometry
from ztp_search.results.report.blocks import Block, Code, Section, Table, Words
from ztp_search.results.report.material import Material
from ztp_search.results.report.tables import gflops_text

COUNTS = {
    "total": "counting all that runs",
    "backbone": "counting what is left of the model, without what pruning adds",
}
RULES = {"both": "halving and evidence"}


def asked(of: Material) -> Section:
    contract, about = of.found.contract, of.found.attributes.get("about", {})
    if not contract or not about:
        return Section("asked", "Asked", "What was asked", [])
    blocks: list[Block] = [
        Words(
            "The best way to drop and merge tokens of a pre-trained vision transformer, without "
            "training, that costs no more than a budget."
        ),
        Table("The search", ("", ""), _facts(contract, about), words=True),
    ]
    title = "The command, which resumes the search and adds what is missing"
    blocks.append(Code("sh", of.command, title))
    return Section("asked", "Asked", "What was asked", blocks)


def _facts(contract: Mapping[str, Any], about: Mapping[str, Any]) -> list[tuple[str, str]]:
    model, data, geometry = about["model"], about["data"], contract["geometry"]
    unpruned = _unpruned_gflops(contract)
    budget, runtime = contract["budget"], contract["runtime"]
    gflops = budget["macs"] / 1e9
    kwargs = ", ".join(f"{key}={value}" for key, value in model["kwargs"].items())
    split = data["split"] or "as found"
    if data["holdout_split"]:
        split += f", holdout from {data['holdout_split']}"
    config = ", ".join(f"{key} {value}" for key, value in data["config"].items())
    facts = [
        ("model", model["name"] + (f" ({kwargs})" if kwargs else "")),
        ("weights", model["weights"] or "timm's pretrained ones"),
        ("size", f"{geometry['depth']} blocks of width {geometry['embed_dim']}, "
                 f"{geometry['prefix_tokens'] + geometry['patch_tokens']} tokens, "
                 f"{gflops_text(unpruned)} GFLOPs per image unpruned"),
        ("budget", f"{gflops_text(gflops)} GFLOPs per image ({100 * gflops / unpruned:.3g} %), of "
                   f"which at least {100 * (1 - budget['tolerance']):.4g} % are used, "
                   f"{COUNTS[budget['counts']]}"),
        ("data", f"{data['source']} (split {split})"),
        ("images", f"{contract['images']['count']:,} choose, {contract['holdout']['count']:,} "
                   "others report (holdout)"),
        ("preprocessing", config),
        ("objective", contract["objective"]),
        ("search space", about["space"] + (f", method {contract['method']}"
                                           if "method" in contract else "")),
        ("sampler", f"{contract['sampler']}, seed {contract['seed']}"),
        ("racing", _racing(contract["racing"])),
        ("run on", f"{runtime['device']}, {runtime['precision']}, batches of "
                   f"{runtime['batch_size']}, {runtime['threads']} "
                   f"thread{'s' * (runtime['threads'] > 1)} per worker"),
    ]  # fmt: skip
    if data.get("class_map"):
        facts.insert(5, ("class map", str(data["class_map"])))
    if data.get("unreadable"):
        facts.insert(6, ("left out", f"{data['unreadable']:,} unreadable images"))
    return facts


def _racing(racing: Mapping[str, Any]) -> str:
    rungs = [f"{rung:,}" for rung in racing["rungs"]]
    rule = RULES.get(racing["rule"], racing["rule"])
    if len(rungs) < 2:
        return f"{rule}: every trial on {rungs[0]} images"
    signal = str(racing.get("signal", "correct")).replace("-", " ")
    return f"{rule}, by {signal}, on {', '.join(rungs[:-1])} and {rungs[-1]} images"


def _unpruned_gflops(contract: Mapping[str, Any]) -> float:
    return flops(Geometry(**contract["geometry"]), PruningConfig()).gflops()["unpruned"]


def origin(of: Material) -> Section:
    contract, about = of.found.contract, of.found.attributes.get("about", {})
    rows = [("study", of.found.study), ("database", of.found.storage)]
    rows += [
        (name, str(contract[key]))
        for name, key in (
            ("search space, SHA-256", "space"), ("weights, SHA-256", "weights_sha256"),
        )
        if key in contract
    ]  # fmt: skip
    rows += [
        (f"{name} images, SHA-256", contract[key]["sha256"])
        for name, key in (("search", "images"), ("holdout", "holdout"))
        if key in contract and contract[key]["count"]
    ]
    rows.append(("image evaluations", f"{of.result.image_evaluations:,}"))
    versions = about.get("versions", {})
    if versions:
        rows.append(("versions", ", ".join(f"{name} {each}" for name, each in versions.items())))
    rows += _machine(of)
    table = Table("Provenance", ("", ""), rows, words=True)
    return Section("origin", "Provenance", "Where it comes from", [table])


def _machine(of: Material) -> Sequence[tuple[str, str]]:
    speed = of.winner["evidence"].get("speed") if of.winner else None
    if not speed:
        return []
    about = speed["machine"].items()
    known = [f"{key.replace('_', ' ')} {value}" for key, value in about if value is not None]
    return [("measured on", ", ".join(known))]
