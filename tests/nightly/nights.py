"""Nights on small models: their configuration, their scripts, and what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from command_line import run
from onnx import numpy_helper

import trt_opt

SCRIPTS = Path(__file__).parents[2] / "scripts" / "nightly"
DIGITS = Path(trt_opt.__file__).parent / "samples" / "digits"

ENVIRONMENT = {**os.environ, "TRT_OPT_PYTHON": sys.executable}
HISTORY_NEEDED = 8
"""Nights before a figure alone can be called worse."""

SETTINGS = """
output = "out"
least_free_mib = 1
{top}
[perf]
rounds = 2
round_s = 0.02
warm_up_s = 0.2
threads = 1
ab_launches = 5
ab_allow_invalid = true
options = ["--allow-invalid"]
[check]
allow_inconclusive = true
{tables}
[[precisions]]
name = "fp32"
[[precisions]]
name = "int8"
int8 = true
[[targets]]
name = "cpu"
target = "onnxruntime"
"""


@dataclass(frozen=True)
class Site:
    """A folder with a configuration; every night's files are in `out`."""

    folder: Path

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.folder / "nightly.toml"

    @property
    def history(self) -> Path:
        """The history's file."""
        return self.folder / "out" / "history.db"

    def configure(self, models: list[dict[str, Any]], *, top: str = "", tables: str = "") -> None:
        """Writes the configuration; a model's data are a few digits unless it names others."""
        text = SETTINGS.format(top=top, tables=tables)
        for model in models:
            given = {"data": str(self.folder / "few.npz"), "precisions": ["fp32"], **model}
            text += "[[models]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items())
        self.config.write_text(text)

    def command(self, kind: str, night: str, *more: str) -> list[str]:
        """What runs a night."""
        return [str(SCRIPTS / f"{kind}.sh"), str(self.config), "--night", night, *more]

    def run(self, kind: str, night: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Runs a night to its end."""
        words = self.command(kind, night, *more)
        return subprocess.run(
            words, check=False, capture_output=True, text=True, env=ENVIRONMENT, cwd=self.folder, timeout=500
        )

    def verdict(self, kind: str, night: str) -> dict[str, Any]:
        """What a night said; units by their name."""
        plain = json.loads((self.folder / "out" / night / kind / "verdict.json").read_text())
        return {**plain, "units": {unit["unit"]: unit for unit in plain["units"]}}

    def journal(self, night: str) -> list[dict[str, Any]]:
        """The night's steps, as they were written."""
        lines = (self.folder / "out" / night / "journal.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines if line]

    def quiet_nights(self, kind: str, night: str, count: int = HISTORY_NEEDED) -> None:
        """Lets as many nights pass in which everything is as it was in this one."""
        for _ in range(count):
            for step in self.journal(night):
                verb, _, unit = step["step"].partition("/")
                if verb == f"record-{kind}":
                    what = "bench" if kind == "perf" else "compare"
                    file = self.folder / "out" / night / "results" / kind / f"{unit}.{what}.json"
                    series = unit.removesuffix("-cpu")
                    words = (str(file), "--model", series, "--history", str(self.history), "--force")
                    assert run("regress", "record", *words).exit_code == 0


def made_site(folder: Path, samples: int = 16) -> Site:
    """A folder with a copy of the digits model and a few samples."""
    with np.load(DIGITS / "test.npz") as stored:
        np.savez(folder / "few.npz", **{name: stored[name][:samples] for name in stored.files})
    (folder / "model.onnx").write_bytes((DIGITS / "model.onnx").read_bytes())
    return Site(folder)


def spoil_weights(file: Path, share: float = 1.0) -> None:
    """Makes a model less accurate: noise as large as the weights of every layer is added to them."""
    model = onnx.load(file)
    noise = np.random.default_rng(0)
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT and len(weights.dims) > 1:
            values = numpy_helper.to_array(weights)
            spoilt = values + share * values.std() * noise.standard_normal(values.shape).astype(np.float32)
            weights.CopyFrom(numpy_helper.from_array(spoilt.astype(np.float32), weights.name))
    onnx.save(model, file)


def make_bigger(file: Path) -> None:
    """Adds an initialiser as large as a third of the file, which nothing reads but the file carries."""
    model = onnx.load(file)
    values = np.random.default_rng(0).standard_normal(max(64, file.stat().st_size // 12)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, "left_over"))
    onnx.save(model, file)


def make_slower(file: Path, copies: int = 3) -> None:
    """Computes everything several times, and adds up outputs times zero, so that the answer stays what it was."""
    model = onnx.load(file)
    graph = model.graph
    nodes, output = list(graph.node), graph.output[0].name
    constants = {one.name for one in graph.initializer} | {one.name for one in graph.input}
    graph.initializer.append(numpy_helper.from_array(np.array(1e-9, np.float32), "next_to_nothing"))
    last = f"{output}_0"
    for node in nodes:
        node.output[:] = [last if name == output else name for name in node.output]
        node.input[:] = [last if name == output else name for name in node.input]
    first_input = graph.input[0].name
    for copy in range(1, copies + 1):
        # An input that is a little different: equal subgraphs would be computed once.
        shifted = f"{first_input}_{copy}"
        graph.initializer.append(numpy_helper.from_array(np.array(copy * 1e-6, np.float32), f"shift_{copy}"))
        graph.node.append(onnx.helper.make_node("Add", [first_input, f"shift_{copy}"], [shifted]))
        names = {first_input: shifted}
        for node in nodes:
            twin = onnx.NodeProto()
            twin.CopyFrom(node)
            twin.name = f"{node.name}_copy_{copy}"
            twin.input[:] = [
                names.get(name, name if name in constants or not name else f"{name}_copy_{copy}") for name in node.input
            ]
            twin.output[:] = [f"{name}_copy_{copy}" if name else "" for name in node.output]
            graph.node.append(twin)
        scaled, total = f"scaled_{copy}", output if copy == copies else f"{output}_{copy}"
        graph.node.append(onnx.helper.make_node("Mul", [f"{output}_0_copy_{copy}", "next_to_nothing"], [scaled]))
        graph.node.append(onnx.helper.make_node("Add", [last, scaled], [total]))
        last = total
    onnx.checker.check_model(model)
    onnx.save(model, file)
