"""What the machine does while something is timed: clocks, power, heat, and who else is at work."""

from trt_opt.telemetry.watch import Telemetry, machine_identity

__all__ = ["Telemetry", "machine_identity"]
