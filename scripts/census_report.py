"""The census as a page."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]

CLEAN_UP = "clean-up"
LIBRARIES = ("tensorrt_rtx", "onnx", "onnxruntime", "onnx-graphsurgeon", "polygraphy")


def report_of(records: Sequence[Record], target: str) -> str:
    """Totals by suite, what the passes gained, what is left and why, as Markdown."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    lines = [
        "# Census: ONNX's own test models before and after rewriting",
        "",
        f"{len(records)} models of onnx's backend test suite for `{target}`, with {versions}. Made by",
        "",
        "    python scripts/census.py --work FOLDER --report docs/measured/census.md",
        "",
        '"Accepted": TensorRT-RTX\'s parser and builder take the model, on a machine without a GPU; nothing was run on',
        'one. "Verified": the rewritten model also gives the suite\'s expected outputs (rtol 1e-3, atol 1e-5), on ONNX',
        "Runtime or else onnx's reference implementation. As it is, a model that TensorRT takes but would misread",
        "counts as refused. With options: inputs that decide shapes made constants (`--freeze-input`), integer types",
        "TensorRT lacks made int32 or int64 at the ends (`--widen-io`), where the default does not do.",
        "",
        *_totals(records),
        "",
        "## By class",
        "",
        "Models refused as they are and verified now, by the folder of `trt_opt/passes` whose passes changed them.",
        "",
        *_classes(records),
        "",
        "## By pass",
        "",
        "Models that are verified now and were refused as they are, by the passes that changed them, the clean-up "
        "passes aside.",
        "",
        *_gains(records),
        "",
        "## What is still refused",
        "",
        *_left(records),
    ]
    return "\n".join(lines) + "\n"


def by_default(record: Record) -> bool:
    """Verified without options."""
    return bool(record["accepted"] and record["verified"])


def with_options(record: Record) -> bool:
    """Verified, with options if need be."""
    return by_default(record) or "with_options" in record


def _totals(records: Sequence[Record]) -> list[str]:
    suites = sorted({record["key"].split("/")[0] for record in records})
    lines = [
        "| suite | models | accepted as they are | verified by default | verified with options |",
        "|---|---|---|---|---|",
    ]
    for suite in [*suites, ""]:
        chosen = [record for record in records if not suite or record["key"].startswith(f"{suite}/")]
        counts = [
            sum(map(test, chosen)) for test in (lambda entry: bool(entry.get("before")), by_default, with_options)
        ]
        cells = [f"{count} ({100 * count / max(1, len(chosen)):.1f} %)" for count in counts]
        lines.append(f"| {suite or 'all'} | {len(chosen)} | {' | '.join(cells)} |")
    lost = [record["key"] for record in records if record.get("before") and not record["accepted"]]
    unverified = [record["key"] for record in records if record.get("before") and not by_default(record)]
    told = f"Accepted before and refused after: {len(lost)}. {', '.join(lost)}".rstrip()
    return [*lines, "", told, f"Accepted before and after, but not verified: {', '.join(unverified) or 'none'}."]


def _gains(records: Sequence[Record]) -> list[str]:
    from trt_opt.passes import PASSES

    gained: Counter[tuple[str, str]] = Counter()
    for record in records:
        if record.get("before") or not with_options(record):
            continue
        found = record if by_default(record) else record["with_options"]
        passes = [name for name in found["passes"] if name not in PASSES] or [CLEAN_UP]
        options = "" if by_default(record) else _options_used(found["options"])
        gained[" + ".join(passes), options] += 1
    lines = ["| passes | options | models |", "|---|---|---|"]
    return lines + [f"| {passes} | {options} | {count} |" for (passes, options), count in gained.most_common()]


def _classes(records: Sequence[Record]) -> list[str]:
    """The same by class: the folders of `trt_opt/passes` that the passes come from, or the options that were needed."""
    gained: Counter[str] = Counter()
    for record in records:
        if record.get("before") or not with_options(record):
            continue
        if by_default(record):
            gained[" + ".join(_folders(record["passes"]))] += 1
        else:
            gained[f"only with {_options_used(record['with_options']['options'])}"] += 1
    running = sum(1 for record in records if record.get("before"))
    lines = [
        "| class | models | running share |",
        "|---|---|---|",
        f"| as they are | {running} | {_share(running, records)} |",
    ]
    for name, count in gained.most_common():
        running += count
        lines.append(f"| {name} | {count} | {_share(running, records)} |")
    return lines


def _share(count: int, records: Sequence[Record]) -> str:
    return f"{100 * count / max(1, len(records)):.1f} %"


def _folders(names: Sequence[str]) -> list[str]:
    from trt_opt.passes import PASSES, REPAIRS

    found = sorted({type(REPAIRS[name]).__module__.split(".")[2] for name in names if name in REPAIRS})
    return found or (["opset conversion"] if any(name not in PASSES for name in names) else ["clean_up"])


def _options_used(text: str) -> str:
    return " ".join(option for option in ("--freeze-input", "--widen-io") if option in text)


def _left(records: Sequence[Record]) -> list[str]:
    reasons: Counter[tuple[str, str]] = Counter()
    for record in records:
        if not with_options(record):
            reasons[_reason(record)] += 1
    lines = ["| models | operator | reason |", "|---|---|---|"]
    return lines + [f"| {count} | {op} | {why} |" for (op, why), count in reasons.most_common()]


def _reason(record: Record) -> tuple[str, str]:
    if record["accepted"]:
        return "", f"accepted, not verified: {_cut(str(record['wrong']))}"
    if not record["refused"]:
        return "", "; ".join(record.get("notes", [])) or "not built"
    _, operator, reason, *_rest = record["refused"][0]
    words = [word for word in reason.split() if "'" not in word and not any(letter.isdigit() for letter in word)]
    return operator, _cut(" ".join(words))


def _cut(text: str, most: int = 110) -> str:
    plain = " ".join(text.replace("|", "/").split())
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
