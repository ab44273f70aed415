"""Writes small models with one layer that INT8 ruins, and their data: something to try `trt-opt sensitivity` on.

python scripts/make_planted_faults.py --output faults
trt-opt sensitivity faults/outlier_channel.onnx --calib-data faults/outlier_channel.calibration.npz
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from planted_faults import PLANTED


def main() -> None:
    """Writes a model, its calibration data and its labelled evaluation data for every fault asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the folder to write to")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(PLANTED)}; all if none is named")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(PLANTED))
    if unknown:
        parser.error(f"there is no fault called {unknown[0]}: {', '.join(PLANTED)}")
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.names or PLANTED:
        planted = PLANTED[name]()
        onnx.save(planted.model, options.output / f"{name}.onnx")
        np.savez(options.output / f"{name}.calibration.npz", **planted.calibration)
        np.savez(options.output / f"{name}.evaluation.npz", **planted.labelled)
        wanted = "  --activation-products" if planted.activation_products else ""
        print(f"{name:<24} guilty: {planted.guilty}{wanted}")


if __name__ == "__main__":
    main()
