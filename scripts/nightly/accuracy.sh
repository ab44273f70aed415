#!/bin/sh
# A night's accuracy: every model of a configuration built, compared, and held against its history.
#
#   accuracy.sh nightly.toml [--night 2026-11-25] [--label COMMIT] [--fresh]
#
# Exit codes: 0 passed, 1 something became worse or could not be told, 2 wrong request, 4 something was not measured,
# 75 another run is under way. See docs/nightly.md.
# shellcheck source-path=SCRIPTDIR
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/python.sh"
python=$(python_with_trt_opt)
exec "$python" "$here/nightly.py" accuracy "$@"
