"""What ztp-search does, from Python. The command line is a thin user of this module.

Whatever the user has wrong is a `ZtpError` of one line, and a `WorkerError` what is the fault of
ztp-search or the machine. Every result has `to_dict()`, which is what `--json` prints.

The functions import what they need when they run: torch and timm take seconds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ztp_search.driver.progress import Progress, told
from ztp_search.errors import ZtpError
from ztp_search.evaluation.engines import check_engines
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.config_file import ConfigFile, read_config_file
from ztp_search.settings import (
    EvaluateSettings,
    ModelSettings,
    SearchSettings,
    VisualizeSettings,
    resolve_evaluation,
    resolve_model,
    resolve_search,
    resolve_visualization,
    storage_url,
    stored_preprocessing,
    weights_sha256_of,
)

if TYPE_CHECKING:
    from ztp_search.backbones.loading import LoadedModel
    from ztp_search.results.best_trials import BestTrials
    from ztp_search.results.exporters import Exported
    from ztp_search.results.front_result import FrontResult
    from ztp_search.results.measured import CostResult, EvaluationResult
    from ztp_search.results.report.blocks import Pictures
    from ztp_search.results.report.written import WrittenReport
    from ztp_search.results.search_result import SearchResult
    from ztp_search.results.visualization import Visualization
    from ztp_search.study import StudyReader

AnyConfig: TypeAlias = str | os.PathLike[str] | ConfigFile | PruningConfig
"""A configuration, or the file that holds one."""


def search(settings: SearchSettings, progress: Progress | bool | None = None) -> SearchResult:
    """Search for the best configuration under a budget, or resume that search.

    Settings that are the same lead to the same study: what it holds is not evaluated again.

    Args:
        settings: what to search, with what, and how long.
        progress: receives stages, notes and counts; None: a notebook shows them, True: stderr does
            too, False: nobody.

    Returns:
        The winner, with its evidence and the comparison on holdout images.

    Raises:
        ZtpError: the user's mistake, found before any work where it can be.
        WorkerError: evaluation failed for good.

    Example:
        >>> from ztp_search import SearchSettings, search
        >>> result = search(SearchSettings(
        ...     space="digits", budget="68%", trials=4, images=64, holdout=32, workers=0,
        ... ))
        >>> result.study, result.trials.complete + result.trials.pruned
        ('digits-68%-seed0', 4)
        >>> 0.99 * 0.68 <= result.winner.to_dict()["gflops"]["total"] / 0.106 <= 0.69
        True
    """
    budgets = settings.budgets
    if len(budgets) > 1:
        raise ZtpError(
            f"`budget` must be one budget for `search`, but got {', '.join(budgets)}; "
            f"use `search_front` for several"
        )
    from ztp_search.results.search_result import SearchResult

    with told(progress) as listener:
        result = _run(settings, listener)
    assert isinstance(result, SearchResult)
    return result


def search_front(settings: SearchSettings, progress: Progress | bool | None = None) -> FrontResult:
    """Search under several budgets, which share model, images, workers and references.

    Draws accuracy over GFLOPs of the winners too, as `front-….svg` in `out`.

    Args:
        settings: as for `search`; `budget` holds several.
        progress: receives stages, notes and counts; None: a notebook shows them, True: stderr does
            too, False: nobody.

    Returns:
        A result per budget, and the front that their winners make.

    Raises:
        ZtpError: the user's mistake, found before any work where it can be.
        WorkerError: evaluation failed for good.

    Example:
        >>> from ztp_search import SearchSettings, search_front
        >>> found = search_front(SearchSettings(
        ...     space="digits", budget="50%,68%", trials=4, images=64, holdout=32, workers=0,
        ... ))
        >>> [result.study for result in found.results]
        ['digits-50%-seed0', 'digits-68%-seed0']
        >>> found.figure
        'ztp-runs/front-digits-seed0.svg'
    """
    from ztp_search.results.front_result import FrontResult

    with told(progress) as listener:
        result = _run(settings, listener)
        if not isinstance(result, FrontResult):
            result = FrontResult((result,), result.seconds)
        from ztp_search.results.figures import front_figure

        space = Path(resolve_search(settings).space.name).stem
        name = settings.study or f"{space}-seed{settings.seed}"
        path = Path(settings.out) / f"front-{name.replace('/', '_')}.svg"
        try:
            front_figure(result.to_dict(), path)
        except ZtpError as error:  # the result is not lost for want of a picture
            listener.note(str(error))
            return result
        return replace(result, figure=str(path))


@contextlib.contextmanager
def load_study(
    storage: str | None = None, name: str | None = None, out: str | Path = "ztp-runs"
) -> Iterator[StudyReader]:
    """Open a stored study for reading, while a search may go on with it.

    Args:
        storage: URL of the database; None: SQLite in `out`.
        name: of the study; None: the one that was searched last.
        out: folder of the database, without `storage`.

    Raises:
        StudyError: there is no such study; the message names those there are.

    Example:
        >>> from ztp_search import load_study
        >>> with load_study("sqlite:///ztp-runs/studies.db", "digits-68%-seed0") as study:
        ...     [trial.number for trial in study.trials()]
        [0, 1, 2, 3]
    """
    from ztp_search.study import StudyReader

    with StudyReader.open(storage_url(storage, out), name) as study:
        yield study


def best(
    storage: str | None = None,
    study: str | None = None,
    n: int = 10,
    *,
    out: str | Path = "ztp-runs",
) -> BestTrials:
    """The best complete trials of a study with their evidence, the best first.

    Args:
        storage: URL of the database; None: SQLite in `out`.
        study: its name; None: the one that was searched last.
        n: how many.
        out: folder of the database, without `storage`.

    Raises:
        StudyError: there is no such study; the message names those there are.
        ZtpError: `n` is below 1.

    Example:
        >>> from ztp_search import best
        >>> found = best(study="digits-68%-seed0", n=1)
        >>> len(found.trials), found.objective
        (1, 'top1')
    """
    if n < 1:
        raise ZtpError(f"`n` must be 1 or above, but got {n}")
    from ztp_search.results.best_trials import best_trials

    with load_study(storage, study, out) as opened:
        return best_trials(opened, n)


def export(
    path: str | Path,
    format: str = "json",
    *,
    config: AnyConfig | None = None,
    model: ModelSettings | None = None,
    storage: str | None = None,
    study: str | None = None,
    trial: int | None = None,
    out: str | Path = "ztp-runs",
) -> ConfigFile:
    """Write a configuration for other tools: the winner of a study, another of its trials, a file.

    Args:
        path: file or folder to write.
        format: a name of `results.exporters.EXPORTERS`.
        config: a configuration, or the file that holds one, in place of a study's.
        model: the model and weights, where they are not to be those of the configuration.
        storage: URL of the database; None: SQLite in `out`.
        study: its name; None: the one that was searched last.
        trial: its number; None: the best.
        out: folder of the database, without `storage`.

    Returns:
        What was written.

    Raises:
        StudyError: there is no such study or complete trial.
        ConfigError: the format cannot express the configuration, or the weights are others.
        ModelError: the format holds the model, which cannot be had.
        ZtpError: there is no such format, a library that it needs is not installed, or the path
            cannot be written.

    Example:
        >>> from ztp_search import export, load_config
        >>> file = export("best.json", study="digits-68%-seed0")
        >>> load_config("best.json") == file.config
        True
    """
    from ztp_search.results.exporters import load_exporter

    exporter = load_exporter(format)
    with _exported(config, model, storage, study, trial, out) as what:
        try:
            exporter.export(what, Path(path))
        except OSError as error:
            raise ZtpError(f"`output` {path} cannot be written: {error.strerror}") from None
        return what.file


def export_text(
    format: str = "json",
    *,
    config: AnyConfig | None = None,
    storage: str | None = None,
    study: str | None = None,
    trial: int | None = None,
    out: str | Path = "ztp-runs",
) -> tuple[str, ConfigFile]:
    """What `export` would write, as text, and what it returns; ZtpError where it is no text."""
    from ztp_search.results.exporters import TextExporter, load_exporter

    exporter = load_exporter(format)
    if not isinstance(exporter, TextExporter):
        raise ZtpError(f"`format` {format} is no text, so `output` must name a path")
    with _exported(config, None, storage, study, trial, out) as what:
        return exporter.text(what), what.file


def cost(config: AnyConfig, model: ModelSettings | str | None = None) -> CostResult:
    """Multiply-adds of a configuration per block, beside fvcore's count of the model as it runs.

    Args:
        config: a configuration, or the file that holds one.
        model: the model, or its timm name; None: that of the file.

    Raises:
        ConfigError: the file or the configuration breaks a rule, or does not fit the model.
        ModelError: the model cannot be had, or is not one that can be pruned.
        ZtpError: nobody says which model.

    Example:
        >>> from ztp_search import PruningConfig, PruningLayer, cost
        >>> config = PruningConfig((PruningLayer(after_block=6, retention=0.7),))
        >>> counted = cost(config, "deit_tiny_patch16_224")
        >>> counted.cost.tokens
        (197, 197, 197, 197, 197, 197, 138, 138, 138, 138, 138, 138, 138)
        >>> counted.to_dict()["fvcore_gflops"] == counted.gflops["total"]
        True
    """
    file, name = _config_file(config)
    asked = ModelSettings(model=model) if isinstance(model, str) else model or ModelSettings()
    spec = resolve_model(asked, file, name)
    from ztp_search.driver.evaluate import cost_of

    return cost_of(spec, file.config)


def evaluate(
    config: AnyConfig,
    settings: EvaluateSettings | None = None,
    progress: Progress | bool | None = None,
) -> EvaluationResult:
    """Measure a configuration and the unpruned model on images.

    Args:
        config: a configuration, or the file that holds one.
        settings: model, images and how it runs, where they are not to be those of the file.
        progress: receives stages, notes and counts; None: a notebook shows them, True: stderr does
            too, False: nobody.

    Returns:
        Accuracy, agreement, GFLOPs and speed of both.

    Raises:
        ZtpError: the user's mistake; among them weights or images that are not those of the
            file's evidence, although no others were asked for.
        WorkerError: evaluation failed for good.

    Example:
        >>> from ztp_search import EvaluateSettings, evaluate
        >>> measured = evaluate("best.json", EvaluateSettings(workers=0))
        >>> measured.images, measured.image_set
        (32, 'holdout')
        >>> 0.5 < measured.agreement <= 1
        True
    """
    settings = settings or EvaluateSettings()
    check_engines(settings.engines)
    file, name = _config_file(config)
    asked = resolve_evaluation(settings, file, name)
    from ztp_search.driver.evaluate import evaluate

    with told(progress) as listener:
        return evaluate(asked, listener)


def visualize(
    config: AnyConfig | Sequence[AnyConfig],
    output: str | Path,
    settings: VisualizeSettings | None = None,
    progress: Progress | bool | None = None,
) -> Visualization:
    """Draw what pruning layers drop and merge of images, layer by layer, as PNG, SVG or PDF.

    Args:
        config: a configuration, or the file that holds one; several are rows of one picture.
        output: the picture, in the format that its suffix names.
        settings: model, images and how it runs, where they are not to be those of the first file;
            whether the importance that layers ranked by is drawn too.
        progress: receives stages, notes and counts; None: a notebook shows them, True: stderr does
            too, False: nobody.

    Returns:
        What was drawn, per image and configuration the predictions and the tokens of each layer.

    Raises:
        ZtpError: the user's mistake; among them configurations of different models, and more
            cells than a picture can show. Nothing has been written then.

    Example:
        >>> from ztp_search import VisualizeSettings, visualize
        >>> drawn = visualize("best.json", "tokens.png", VisualizeSettings(images=2))
        >>> [image.name for image in drawn.images]
        ['holdout image 0', 'holdout image 1']
        >>> layers = drawn.images[0].reduced[0].layers
        >>> layers[0].tokens_in - layers[0].tokens_out == sum(
        ...     layers[0].dropped[stage] + layers[0].merged[stage] for stage in "si")
        True
    """
    one = isinstance(config, str | os.PathLike | ConfigFile | PruningConfig)
    configs: Sequence[AnyConfig] = [config] if one else config  # type: ignore[assignment, list-item]
    if not configs:
        raise ZtpError("`config` must be one configuration or more, but there is none")
    files: dict[str, ConfigFile] = {}
    for each in configs:
        file, name = _config_file(each)
        files[name if name not in files else f"{name} ({len(files) + 1})"] = file
    asked = resolve_visualization(settings or VisualizeSettings(), files)
    from ztp_search.driver.visualize import visualize

    with told(progress) as listener:
        return visualize(asked, Path(output), listener)


def report(
    path: str | Path,
    format: str | None = None,
    *,
    pictures: bool = True,
    settings: VisualizeSettings | None = None,
    progress: Progress | bool | None = None,
    storage: str | None = None,
    study: str | None = None,
    out: str | Path = "ztp-runs",
) -> WrittenReport:
    """Write a study as one file for people: what was asked, what was found, how sure that is.

    The study may have ended, be searched just now, or be interrupted. HTML needs no network, and
    holds interactive plots and pictures of what the winner does to images; Markdown holds tables.

    Args:
        path: file to write.
        format: a name of `results.report.FORMATS`; None: that of the path's suffix.
        pictures: whether the model is run for pictures. Where it or its images cannot be had, the
            report says so.
        settings: of these pictures: how many images, model and images where they are not to be
            those of the study. None: holdout images of the study.
        progress: receives stages, notes and counts; None: a notebook shows them, True: stderr does
            too, False: nobody.
        storage: URL of the database; None: SQLite in `out`.
        study: its name; None: the one that was searched last.
        out: folder of the database, without `storage`, and of decoded images.

    Returns:
        What it says in short; `lacks` says what could not be had.

    Raises:
        StudyError: there is no such study.
        ZtpError: there is no such format, a library that it needs is not installed, or the path
            cannot be written.

    Example:
        >>> from ztp_search import report
        >>> written = report("report.html", study="digits-68%-seed0")
        >>> written.headline.startswith("At 0.07")
        True
    """
    from ztp_search.results.report import format_of, write_report
    from ztp_search.results.report.contents import report
    from ztp_search.results.report.material import material
    from ztp_search.results.report.written import WrittenReport

    path = Path(path)
    chosen = format_of(path, format)
    render = chosen.load()
    with load_study(storage, study, out) as opened:
        of = material(opened, plots=chosen.pictures)
    if of.result.winner is not None and pictures and chosen.pictures:
        asked = settings or VisualizeSettings(out=out)
        with told(progress) as listener:
            of = replace(of, pictures=_pictures(of.result.winner, of.trial, asked, listener))
    made = report(of)
    write_report(render(made), path)
    return WrittenReport(str(path), made.study, made.headline, made.qualification, made.lacks)


def _pictures(
    file: ConfigFile, name: str, settings: VisualizeSettings, progress: Progress
) -> Pictures | str:
    """What a configuration does to images; a sentence where that cannot be had."""
    try:
        asked = resolve_visualization(settings, {name: file})
        from ztp_search.driver.visualize import look
        from ztp_search.results.report.pictures import pictures

        return pictures(look(asked, progress))
    except ZtpError as error:
        return f"There are no pictures: {error}."


@contextlib.contextmanager
def _exported(
    config: AnyConfig | None, model: ModelSettings | None,
    storage: str | None, study: str | None, trial: int | None, out: str | Path,
) -> Iterator[Exported]:  # fmt: skip
    """What exporters are given, while the study is open that it comes from."""
    from ztp_search.results.documents import config_file, find_trial
    from ztp_search.results.exporters import Exported

    asked = model or ModelSettings()
    if config is not None:
        if storage is not None or study is not None or trial is not None:
            raise ZtpError("`config` and a trial of a study exclude one another; leave one out")
        file, name = _config_file(config)
        yield Exported(file, None, lambda: _loaded(file, asked, name))
        return
    with load_study(storage, study, out) as opened:
        found = find_trial(opened, trial)
        file = config_file(opened, found)
        name = f"trial {found.number} of study {opened.name}"
        yield Exported(file, opened, lambda: _loaded(file, asked, name))


def _loaded(file: ConfigFile, asked: ModelSettings, name: str) -> LoadedModel:
    """The model of a configuration file, with the preprocessing that it was measured with."""
    spec = resolve_model(asked, file, name)
    from ztp_search.driver.evaluate import load_expected

    stored = stored_preprocessing(asked, file)
    return load_expected(spec, stored, weights_sha256_of(asked, file), name)


def _run(settings: SearchSettings, progress: Progress) -> SearchResult | FrontResult:
    """Resolve and check, start Ray, import torch, search: in this order, as each takes longer."""
    from ztp_search.driver.start import early_workers, resolved

    check_engines(settings.engines)
    asked = resolved(settings)
    with early_workers(asked, progress):
        from ztp_search.driver.run import run

        return run(asked, progress)


def _config_file(config: AnyConfig) -> tuple[ConfigFile, str]:
    """The file, and what messages call it."""
    if isinstance(config, PruningConfig):
        return ConfigFile(config), "the configuration"
    if isinstance(config, ConfigFile):
        return config, "the configuration file"
    return read_config_file(config), os.fspath(config)
