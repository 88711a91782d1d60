"""A folder that `timm.create_model("local-dir:…")` opens, and that can be put on the hub.

It holds the unpruned model as timm saves it, the configuration file, the Python module that prunes
it, and a model card with the evidence.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from ztp_search.pruning.config_file import ConfigFile
from ztp_search.results.exporters.base import Exported, Exporter
from ztp_search.results.exporters.python_module import PythonModule

CONFIG, MODULE, CARD = "ztp_search.json", "pruned.py", "README.md"


class HuggingFaceFolder(Exporter):
    """config.json, model.safetensors, ztp_search.json, pruned.py, README.md."""

    def export(self, what: Exported, path: Path) -> None:
        from timm.models import save_for_hf

        loaded = what.load()
        texts = {
            CONFIG: what.file.dumps(), MODULE: PythonModule().text(what), CARD: card(what.file),
        }  # fmt: skip
        path.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            save_for_hf(
                loaded.model, folder, model_config={"pretrained_cfg": dict(loaded.data_config)},
                model_args=dict(what.file.model.get("kwargs") or {}), safe_serialization=True,
            )  # fmt: skip
            for name, text in texts.items():
                (Path(folder) / name).write_text(text, encoding="utf-8", newline="")
            for file in Path(folder).iterdir():  # all is written: nothing half-new is left
                file.replace(path / file.name)

    def omits(self, file: ConfigFile) -> str | None:
        return (
            f"timm opens the unpruned model; {MODULE} in the folder, or ztp_search.apply with "
            f"{CONFIG}, prunes it"
        )


def card(file: ConfigFile) -> str:
    """The model card, with the evidence as the configuration file has it."""
    document = file.to_dict()
    name = file.model.get("name", "model")
    lines = [
        "---", "library_name: timm", "tags:", "- image-classification", "- timm",
        "- token-reduction", "---", f"# {name}, tokens reduced without training", "",
        "Found by ztp-search. The weights are those of the unpruned model.", "",
    ]  # fmt: skip
    if "gflops" in document:
        gflops = document["gflops"]
        lines += [
            f"{gflops['total']:.4g} GFLOPs per image instead of {gflops['unpruned']:.4g}; tokens "
            f"of each block, and what leaves the last: {', '.join(map(str, document['tokens']))}.",
            "",
        ]
    lines += [*_evidence(file.evidence), "## Use", "", "```python", "import timm",
              "from pruned import prune  # the module in this folder", "",
              'model = prune(timm.create_model("local-dir:PATH/TO/THIS/FOLDER", '
              "pretrained=True).eval())", "```", ""]  # fmt: skip
    if file.provenance:
        lines += ["## Where it comes from", "", "```json",
                  json.dumps(dict(file.provenance), indent=1), "```", ""]  # fmt: skip
    return "\n".join(lines)


def _evidence(evidence: Any) -> list[str]:
    """A table of what was measured, by image set."""
    if not evidence:
        return []
    lines = ["## Evidence", "", "| images | what | value |", "| --- | --- | --- |"]
    for images, found in evidence.items():
        if images == "speed":
            continue
        for key, value in found.items():
            if isinstance(value, int | float):
                lines.append(f"| {images} | {key} | {value:.6g} |")
            elif key.endswith("ci95") and value:
                lines.append(f"| {images} | {key} | {value[0]:+.4f} to {value[1]:+.4f} |")
    return [*lines, "", *_speed(evidence.get("speed"))]


def _speed(speed: Any) -> list[str]:
    """A table of measured speed, a row per engine and batch size."""
    rows = [row for row in (speed or {}).get("measured", ()) if "failed" not in row]
    if not rows:
        return []
    machine = speed["machine"]["gpu" if speed["device"] == "cuda" else "processor"]
    lines = [
        f"On {machine}, {speed['threads']} thread(s), beside {speed['unpruned']}; GFLOPs promise "
        f"{speed['promised_speedup']:.2f} times.", "",
        "| engine | precision | batch size | ms | ms unpruned | times as fast |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in rows:
        pruned, unpruned = (row[which]["milliseconds"] for which in ("pruned", "unpruned"))
        lines.append(
            f"| {row['engine']} | {row['precision']} | {row['batch_size']} | {pruned:.4g} | "
            f"{unpruned:.4g} | {row['speedup']:.2f} |"
        )
    return [*lines, ""]
