"""One HTML page that holds everything: no network, light and dark, on paper too."""

from trt_opt.report.html.rendering import html_from_content, require_packages

__all__ = ["html_from_content", "require_packages"]
