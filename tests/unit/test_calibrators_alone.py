import subprocess
import sys
from pathlib import Path

import calibrators

BLOCKED = """
import importlib.abc, sys

class OnlyNumpy(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("numpy", "calibrators"):
            raise ImportError(f"{name} is not needed here")

sys.meta_path.insert(0, OnlyNumpy())
import calibrators
for name in calibrators.__all__:
    getattr(calibrators, name)
observer = calibrators.calibrator_from_text("entropy").observer()
observer.observe([1.0, -2.0])
assert observer.range().amax > 0
print("done")
"""


def test_the_package_needs_numpy_alone():
    """It can be imported and used where nothing but NumPy and the standard library is."""
    folder = Path(calibrators.__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.stdout, run.returncode) == ("done\n", 0), run.stderr
