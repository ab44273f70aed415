"""`python -m trt_opt` is `trt-opt`."""

from trt_opt.cli import main

main()
