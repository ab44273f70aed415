"""The sections of a page, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trt_opt.report.html.accuracy import accuracy_section
from trt_opt.report.html.distributions import distributions_section
from trt_opt.report.html.history import history_section
from trt_opt.report.html.latency import latency_section
from trt_opt.report.html.layers import layers_section
from trt_opt.report.html.page import Section
from trt_opt.report.html.provenance import provenance_section
from trt_opt.values.report_content import ReportContent

SECTIONS: tuple[Callable[[ReportContent], Section], ...] = (
    accuracy_section,
    latency_section,
    layers_section,
    distributions_section,
    history_section,
    provenance_section,
)


def sections_of(content: ReportContent) -> Iterator[Section]:
    """All sections, those without anything to show too: they say what is missing."""
    return (section(content) for section in SECTIONS)
