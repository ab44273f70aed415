# shellcheck shell=sh
# The Python that has trt-opt.

# python_with_trt_opt: TRT_OPT_PYTHON, else the one beside the program `trt-opt`, else python3; prints its path.
python_with_trt_opt() {
    found=${TRT_OPT_PYTHON:-}
    if [ -z "$found" ] && command -v trt-opt >/dev/null 2>&1; then
        found=$(dirname -- "$(command -v trt-opt)")/python
    fi
    [ -n "$found" ] && [ -x "$found" ] || [ -n "${TRT_OPT_PYTHON:-}" ] || found=python3
    if "$found" -c 'import trt_opt' >/dev/null 2>&1; then
        printf '%s\n' "$found"
    else
        printf '%s: has no trt-opt\n  try: %s\n' "$found" "TRT_OPT_PYTHON=/path/to/venv/bin/python" >&2
        return 5
    fi
}
