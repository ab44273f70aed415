#!/bin/sh
# Whether a model is slower than a base: what `git bisect run` asks of every commit.
#
#   git bisect start BAD GOOD
#   git bisect run bisect.sh --base good.onnx --model models/net.onnx [--make 'make model'] [-- OPTIONS OF regress ab]
#
# --make builds what is to be timed, with TRT_OPT_PYTHON of whichever trt-opt is checked out; --model is what it makes.
# Between two versions of TensorRT nothing is checked out: --make builds for one, --base is the engine of the other.
#
# Exit codes, as git reads them: 0 as fast as the base, 1 slower, 125 this commit cannot be judged (nothing to time, the
# build failed, the machine was not quiet, or nothing could be told), 128 and above: wrong request, bisecting ends.
# shellcheck source-path=SCRIPTDIR
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/python.sh"

GOOD=0 BAD=1 SKIP=125 STOP=128

stop() {
    printf '%s: %s\n' "$1" "$2" >&2
    exit "$STOP"
}

base='' model='' make=''
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        sed -n '2,/^$/s/^# \{0,1\}//p' "$0" | sed '/^shellcheck/d;/^set/d'
        exit 0 ;;
    --base | --model | --make)
        [ $# -ge 2 ] && [ -n "$2" ] || stop "$1" "needs a value"
        case $1 in
        --base) base=$2 ;;
        --model) model=$2 ;;
        --make) make=$2 ;;
        esac
        shift ;;
    --) shift; break ;;
    *) stop "$1" "no such option: --base FILE --model FILE --make COMMAND -- OPTIONS" ;;
    esac
    shift
done
[ -n "$base" ] && [ -n "$model" ] || stop arguments "--base and --model are needed"
[ -e "$base" ] || stop "$base" "there is no such base; keep it outside what git checks out"
python=$(python_with_trt_opt) || exit "$SKIP"

if [ -n "$make" ]; then
    sh -c "$make" >&2 || { echo "the build failed: skipped" >&2; exit "$SKIP"; }
fi
[ -e "$model" ] || { echo "$model: not here: skipped" >&2; exit "$SKIP"; }

result=$(mktemp -d)
trap 'rm -rf "$result"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
status=0
"$python" -m trt_opt regress ab "$base" "$model" -o "$result/ab.json" "$@" >&2 || status=$?
# Only a verdict is an answer; exit code 1 alone may be an INCONCLUSIVE.
verdict=$(sed -n 's/^  "verdict": "\([A-Z]*\)".*/\1/p' "$result/ab.json" 2>/dev/null) || verdict=''
echo "verdict: ${verdict:-none} (exit code $status)" >&2
case $verdict in
PASS) exit "$GOOD" ;;
FAIL) exit "$BAD" ;;
*) exit "$SKIP" ;;
esac
