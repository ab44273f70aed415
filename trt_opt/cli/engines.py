"""`trt-opt engines list|verify|remove`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trt_opt.cli import options
from trt_opt.cli.session import session, verb

engines = typer.Typer(help="Look after the engines that were built.", no_args_is_help=True)

Store = Annotated[Path, typer.Option("--output", "-o", help="The engine store.")]
Which = Annotated[str, typer.Argument(help="A model's name, or the start of a key.", show_default=False)]


@engines.command("list")
@verb
def list_engines(output: Store = Path("engines"), json: options.Json = False) -> None:
    """List the engines in the store."""
    from trt_opt.build.store import EngineStore
    from trt_opt.report.engines import Listing, show_listing
    from trt_opt.report.show import show

    show(Listing(tuple(EngineStore(output).entries())), show_listing, session().out, as_json=json)


@engines.command("verify")
@verb
def verify(
    which: Annotated[str | None, typer.Argument(help="A model or key; all if none.", show_default=False)] = None,
    output: Store = Path("engines"),
    json: options.Json = False,
) -> None:
    """Check every file of the engines against their manifests; exits 1 if one does not fit."""
    from trt_opt.build.store import EngineStore
    from trt_opt.report.engines import Verifications, show_verifications
    from trt_opt.report.show import show

    store = EngineStore(output)
    found = Verifications(tuple(store.verify(entry) for entry in store.matching(which)))
    show(found, show_verifications, session().out, as_json=json)
    if not found.all_good:
        raise typer.Exit(1)


@engines.command("remove")
@verb
def remove(which: Which, output: Store = Path("engines"), json: options.Json = False) -> None:
    """Remove engines from the store."""
    from trt_opt.build.store import EngineStore
    from trt_opt.report.engines import Removal, show_removal
    from trt_opt.report.show import show

    removed = tuple(str(entry.folder) for entry in EngineStore(output).remove(which))
    show(Removal(removed), show_removal, session().out, as_json=json)
