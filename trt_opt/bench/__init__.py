"""How fast sides are: warmed up, timed in turns, and summed up."""

from trt_opt.bench.notes import notes_on
from trt_opt.bench.rounds import Contender, Watch, timed

__all__ = ["Contender", "Watch", "notes_on", "timed"]
