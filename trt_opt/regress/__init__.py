"""Whether a figure became worse: two sides timed in turns, or a series of runs against its own past."""
