"""Files of a trial in the Optuna dashboard, made when they are asked for: nothing is stored."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NoReturn

from matplotlib.figure import Figure

from ztp_search.errors import StudyError
from ztp_search.pruning.cost import flops
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods import parse_config
from ztp_search.pruning.schedules import BASELINES
from ztp_search.results.documents import config_file
from ztp_search.results.plots.theme import colour
from ztp_search.study import StoredTrial, StudyReader

PREFIX = "artifacts:"
"""Of the attributes under which Optuna keeps what it knows of a trial's artifacts."""


def configuration(study: StudyReader, trial: StoredTrial) -> bytes:
    """The configuration file that `ztp-search export --trial` writes."""
    return config_file(study, trial).dumps().encode()


def schedule_figure(study: StudyReader, trial: StoredTrial) -> bytes:
    """Tokens and GFLOPs of each block beside those of the hand-set schedules, as SVG."""
    geometry = Geometry(**study.contract["geometry"])
    reference = study.attributes().get("reference", {})
    shown = {f"trial {trial.number}": ("winner", trial.config)} | {
        BASELINES[name].title: (name, parse_config(reference[name]["config"]))
        for name in BASELINES if reference.get(name)
    }  # fmt: skip
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for title, (role, config) in shown.items():
        cost = flops(geometry, config)
        blocks = [block.block for block in cost.blocks]
        style = {"color": colour(role), "label": title, "drawstyle": "steps-mid",
                 "linewidth": 2.5 if role == "winner" else 1.2,
                 "linestyle": "-" if role == "winner" else "--"}  # fmt: skip
        left.plot(blocks, [block.tokens for block in cost.blocks], **style)
        right.plot(blocks, [block.total / 1e9 for block in cost.blocks], **style)
    for axes, label in ((left, "tokens"), (right, "GFLOPs, pruning behind it included")):
        axes.set_xlabel("block")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3,
                  fontsize="small")  # fmt: skip
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


Artifact = Callable[[StudyReader, StoredTrial], bytes]
ARTIFACTS: Mapping[str, tuple[str, str, Artifact]] = {
    "01": ("trial-{}.json", "application/json", configuration),
    "02": ("trial-{}.svg", "image/svg+xml", schedule_figure),
}
"""File name, type and maker, by the last part of an artifact's id, which is hexadecimal."""


def artifacts_of(study_id: int, number: int) -> dict[str, str]:
    """What Optuna keeps of a trial's artifacts: attributes and their JSON."""
    out = {}
    for kind, (name, mimetype, _) in ARTIFACTS.items():
        id = f"{study_id:08x}-{number:08x}-{kind}"
        meta = {"artifact_id": id, "filename": name.format(number), "mimetype": mimetype,
                "encoding": None}  # fmt: skip
        out[PREFIX + id] = json.dumps(meta)
    return out


class TrialArtifacts:
    """Optuna's store of artifacts, which makes those of our trials.

    reader: the study of that number, None where it is none of ours.
    """

    def __init__(self, reader: Callable[[int], StudyReader | None]) -> None:
        self._reader = reader

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The artifact; FileNotFoundError without it."""
        match = re.fullmatch("([0-9a-f]{8})-([0-9a-f]{8})-([0-9a-f]{2})", artifact_id)
        study = self._reader(int(match[1], 16)) if match else None
        if match is None or study is None or match[3] not in ARTIFACTS:
            raise FileNotFoundError(artifact_id)
        number = int(match[2], 16)
        trial = next((each for each in study.trials() if each.number == number), None)
        if trial is None or trial.state != "complete":
            raise FileNotFoundError(artifact_id)
        return io.BytesIO(ARTIFACTS[match[3]][2](study, trial))

    def write(self, artifact_id: str, content_body: Any) -> NoReturn:
        raise StudyError("artifacts are made of the study, and none is taken")

    def remove(self, artifact_id: str) -> None:
        """Nothing is stored, so nothing is left of a study that is deleted."""
