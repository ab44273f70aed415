"""From files and folders to what one HTML report is made of."""

from trt_opt.run_report.gathering import ReportRequest, content_of

__all__ = ["ReportRequest", "content_of"]
