"""`trt-opt explain`."""

from __future__ import annotations

from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb


@verb
def explain(
    name: Annotated[str | None, typer.Argument(help="A pass; without one, all are listed.", show_default=False)] = None,
    json: options.Json = False,
) -> None:
    """Explain a rewrite: what it does, why TensorRT or INT8 wants it, an example, when it declines."""
    from json import dumps

    from trt_opt.explanations import explanations

    texts = explanations(name)
    if json:
        session().out.write(dumps({"schema_version": 1, "kind": "Explanations", "passes": texts}, indent=2) + "\n")
    elif name:
        session().out.write(f"{name}\n\n{texts[name]}\n")
    else:
        lines = [f"{entry:<36} {text.strip().splitlines()[0]}" for entry, text in texts.items()]
        session().out.write("\n".join(lines) + "\n")
