"""A report, from its first sentence to its last section."""

from __future__ import annotations

import importlib.metadata
from datetime import UTC, datetime

from ztp_search.results.report.asked import asked, origin
from ztp_search.results.report.blocks import Report
from ztp_search.results.report.found import found, pictures, plots, sure
from ztp_search.results.report.material import Material
from ztp_search.results.report.opening import first_sentences, key_figures
from ztp_search.results.report.use import use

SECTIONS = (asked, found, sure, plots, pictures, use, origin)
"""In reading order; one that has nothing to say is left out."""


def report(of: Material) -> Report:
    """The report of a study, whether it has ended, is being searched, or has not begun."""
    headline, qualification = first_sentences(of)
    sections = [section(of) for section in SECTIONS]
    return Report(
        study=of.found.study,
        headline=headline,
        qualification=qualification,
        figures=key_figures(of),
        sections=[each for each in sections if each.blocks],
        lacks=[of.pictures] if isinstance(of.pictures, str) and of.pictures else [],
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        by=importlib.metadata.version("ztp-search"),
    )
