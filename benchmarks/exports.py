"""Exported models against what the GFLOPs ratio promises, the unpruned model exported alike.

    python benchmarks/exports.py [--formats onnx onnx-int8 torch-export python] [--rounds 30]
                                 [--batch-sizes 1 8] [--budget 3.08]

DeiT-S in fp32 with random weights, as the same operations run on the same shapes whatever the
weights are: the paper's schedule and ToMe's, solved to the budget, and trial 0 of the shipped
space's paper part and of its merging part under Monte Carlo with seed 0. onnx is what `ztp-search
export` writes, in ONNX Runtime; onnx-int8 the same file after ONNX Runtime's dynamic quantisation;
python is the module, run by PyTorch. All take turns with the unpruned model of the same format on
one thread. Times are the CPU seconds of the process, which other work on the machine falls on
least. The median over turns of the ratio

    (unpruned seconds) / (pruned seconds x unpruned GFLOPs / pruned GFLOPs)

is the share of the promise. To reach: 0.95. Of ONNX files it is recorded what ONNX Runtime fuses in
the pruned and in the unpruned model.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import tempfile
import time
import types
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import timm
import torch
from common import record
from torch import nn

from ztp_search.backbones import geometry_of
from ztp_search.backbones.loading import LoadedModel
from ztp_search.evaluation.engines.base import Forward
from ztp_search.evaluation.speed import Clock, summary, take_turns
from ztp_search.pruning.budget import parse_budget
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.config_file import ConfigFile
from ztp_search.pruning.cost import flops
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.schedules import paper_schedule, tome_schedule
from ztp_search.results.exporters import Exported, load_exporter
from ztp_search.results.exporters.traced import INPUT
from ztp_search.samplers import MonteCarlo
from ztp_search.space import load_space
from ztp_search.space.decoder import Decoder

MODEL, SPACE = "deit_small_patch16_224", "deit_small"
CPU_SECONDS = Clock(time.process_time, lambda: None)
QUIET = 3
"""Of ONNX Runtime: errors alone."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--budget", default="3.08")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser's advice
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model(MODEL).eval().requires_grad_(False)
    geometry = geometry_of(model)
    configs = {"unpruned": PruningConfig(), **settings(geometry, args.budget)}
    rows: list[dict[str, Any]] = []
    graphs: dict[str, Any] = {}
    for format in args.formats:
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            runs = {}
            for name, config in configs.items():
                path = Path(folder) / f"{name}{SUFFIXES[format]}"
                runs[name] = FORMATS[format](exported(model, geometry, config), path)
                if format.startswith("onnx"):
                    graphs.setdefault(format, {})[name] = operators(path)
            for batch_size in args.batch_sizes:
                images = torch.randn(batch_size, *input_size(model))
                forwards = {name: partial(run, images) for name, run in runs.items()}
                rows += measure(forwards, configs, geometry, format, batch_size, args.rounds)
    least = {
        format: min(row["share_of_promise"] for row in rows if row["format"] == format)
        for format in args.formats
    }
    result = {"clock": "CPU seconds of the process", "least_share_of_promise": least}
    record("exports", {"arguments": vars(args), **result, "settings": rows, "graphs": graphs})


def settings(geometry: Geometry, budget: str) -> dict[str, PruningConfig]:
    """What is measured."""
    parsed = parse_budget(budget, geometry)
    out = {
        "paper's schedule": paper_schedule(geometry, parsed, "declining"),
        "ToMe's schedule": tome_schedule(geometry, parsed, "declining"),
    }
    for method in ("zero-tprune", "merge"):
        decoder = Decoder(load_space(SPACE).restricted(method), geometry, parsed)
        proposal = MonteCarlo(decoder, seed=0).propose(0)
        out[f"{method}, Monte Carlo"] = proposal.config if proposal else None
    return {name: config for name, config in out.items() if config is not None}


def measure(
    forwards: Mapping[str, Forward],
    configs: Mapping[str, PruningConfig],
    geometry: Geometry,
    format: str,
    batch_size: int,
    rounds: int,
) -> list[dict[str, Any]]:
    """A row per configuration; all of them and the unpruned model take turns."""
    turns = take_turns(forwards, CPU_SECONDS, rounds)
    rows = []
    for name, config in configs.items():
        if name == "unpruned":
            continue
        cost = flops(geometry, config)
        promised = cost.unpruned / cost.total
        found = summary({"unpruned": turns["unpruned"], "pruned": turns[name]}, batch_size)
        shares = [value / promised for value in (found["speedup"], *found["speedup_quartiles"])]
        row = {"format": format, "batch_size": batch_size, "setting": name}
        row |= {"promised_speedup": promised, **found}
        row |= {"share_of_promise": shares[0], "share_of_promise_quartiles": shares[1:]}
        rows.append(row | {"config": config.to_dict()})
        print(f"{format}, batch {batch_size}, {name}: {shares[0]:.3f} of the promise "
              f"[{shares[1]:.3f}, {shares[2]:.3f}], {found['speedup']:.3f} times", flush=True)
    return rows


# ---- formats -------------------------------------------------------------------------------


def exported(model: nn.Module, geometry: Geometry, config: PruningConfig) -> Exported:
    """What exporters are given."""
    data_config = {"input_size": list(input_size(model))}
    file = ConfigFile(config, {"name": MODEL, "geometry": dataclasses.asdict(geometry)})
    return Exported(file, None, lambda: LoadedModel(fresh(model), data_config, ""))


def input_size(model: Any) -> tuple[int, ...]:
    """Channels, height and width."""
    return tuple(model.pretrained_cfg["input_size"])


def fresh(model: nn.Module) -> nn.Module:
    """The model with nothing attached to it."""
    copied: nn.Module = timm.create_model(MODEL).eval().requires_grad_(False)
    copied.load_state_dict(model.state_dict())
    return copied


Run = Callable[[torch.Tensor], object]


def onnx_run(what: Exported, path: Path) -> Run:
    load_exporter("onnx").export(what, path)
    return session(path)


def int8_run(what: Exported, path: Path) -> Run:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = path.with_suffix(".whole")
    load_exporter("onnx").export(what, whole)
    # MatMul alone, as ONNX Runtime's guide has it for transformers: a quantised stem is slower.
    quantize_dynamic(whole, path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    return session(path)


def session(path: Path) -> Run:
    """An ONNX file in ONNX Runtime."""
    opened = onnxruntime.InferenceSession(path, options(), providers=["CPUExecutionProvider"])
    return lambda images: opened.run(None, {INPUT: images.numpy()})


def options() -> onnxruntime.SessionOptions:
    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = 1
    chosen.log_severity_level = QUIET
    return chosen


def program_run(what: Exported, path: Path) -> Run:
    load_exporter("torch-export").export(what, path)
    return torch.export.load(path).module()


def module_run(what: Exported, path: Path) -> Run:
    load_exporter("python").export(what, path)
    module: Any = types.ModuleType("pruned")
    exec(compile(path.read_text(), path.name, "exec"), module.__dict__)
    pruned: nn.Module = module.prune(what.load().model)
    return pruned


FORMATS: Mapping[str, Callable[[Exported, Path], Run]] = {
    "onnx": onnx_run,
    "onnx-int8": int8_run,
    "torch-export": program_run,
    "python": module_run,
}


SUFFIXES = {"onnx": ".onnx", "onnx-int8": ".onnx", "torch-export": ".pt2", "python": ".py"}


def operators(path: Path) -> dict[str, Any]:
    """How many operators ONNX Runtime makes of a file, and how often those that it has fused."""
    chosen = options()
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        chosen.optimized_model_filepath = str(optimised)
        onnxruntime.InferenceSession(path, chosen, providers=["CPUExecutionProvider"])
        after = Counter(node.op_type for node in onnx.load(optimised).graph.node)
    before = {node.op_type for node in onnx.load(path).graph.node}
    fused = {name: count for name, count in after.items() if name not in before}
    return {"operators": after.total(), "fused": dict(sorted(fused.items()))}


if __name__ == "__main__":
    main()
