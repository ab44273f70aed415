#!/bin/sh
# Builds, verifies and records the engine of a bundle on a Jetson.
# shellcheck source-path=SCRIPTDIR
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/messages.sh"
. "$here/board.sh"
. "$here/running.sh"
. "$here/folders.sh"
. "$here/bundle.sh"
. "$here/trtexec.sh"
. "$here/verify.sh"

usage() {
    cat <<'TEXT'
usage: build_on_device.sh [options] [--] app.bundle

Builds the engine of a bundle (trt-opt bundle) on this Jetson, runs it on the bundle's samples, and keeps it in
DIR/NAME/SHA256-OF-THE-BUNDLE/ if its outputs are near enough to those of the float model. Needs no root.

  --engines DIR          where engines are kept (default: engines)
  --workspace-mib N      builder's scratch memory (default: as bundled, or what is free)
  --timeout-s N          limit for one attempt to build (default: 3600)
  --tensorrt-python P    build with `trt-opt build` and this Python; otherwise trt-opt is used where it and a Python
                         with TensorRT are found, and trtexec where not
  --trtexec P            build with this trtexec
  --force                build although this bundle's engine is there already, or memory looks too small
  --dry-run              check everything, say what would run, keep nothing
  --help                 this text

Prints the engine's folder. Exit codes: 0 done, 1 the engine's outputs are wrong, 2 wrong request or damaged bundle,
3 cannot be built as bundled, 4 building failed, 5 something is missing here.
TEXT
}

read_arguments() {
    engines=$(absolute engines) workspace='' timeout_s=3600 asked_python='' asked_trtexec='' force=no dry_run=no bundle=''
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h) usage; exit 0 ;;
        --force) force=yes ;;
        --dry-run) dry_run=yes ;;
        --engines | --workspace-mib | --timeout-s | --tensorrt-python | --trtexec)
            [ $# -ge 2 ] && [ -n "$2" ] || fail 2 "$1" "needs a value" "--help"
            case $1 in
            --engines) engines=$(absolute "$2") ;;
            --workspace-mib) whole_number "$1" "$2"; workspace=$2 ;;
            --timeout-s) whole_number "$1" "$2"; timeout_s=$2 ;;
            --tensorrt-python) asked_python=$2 ;;
            --trtexec) asked_trtexec=$2 ;;
            esac
            shift ;;
        --) shift; [ $# -eq 1 ] || fail 2 arguments "one bundle, not $#" "--help"; bundle=$(absolute "$1") ;;
        -*) fail 2 "$1" "no such option" "--help; a file of that name: -- $1" ;;
        *) [ -z "$bundle" ] || fail 2 "$1" "one bundle at a time" "--help"; bundle=$(absolute "$1") ;;
        esac
        shift
    done
    [ -n "$bundle" ] || fail 2 arguments "no bundle given" "build_on_device.sh app.bundle; --help"
}

# A private folder beside the place of the result, so that a rename can put it there.
make_work_folder() {
    [ "$dry_run" = yes ] || mkdir -p -- "$engines" 2>/dev/null || fail 2 "$engines" "cannot be made" "another --engines"
    place=$engines
    if [ "$dry_run" = yes ]; then
        place=$(absolute "${TMPDIR:-/tmp}")
    else
        lock_folder "$engines"
        for stale in "$engines"/.building.*; do [ ! -d "$stale" ] || drop_work_folder "$stale"; done
    fi
    work=$(mktemp -d -- "$place/.building.XXXXXX") || fail 4 "$place" "no folder can be made here" "free space, access"
    mkdir -- "$work/bundle" "$work/result" "$work/scratch"
}

# drop_work_folder FOLDER: an older engine that was only set aside goes back to its place first.
drop_work_folder() {
    if [ -d "$1/old" ]; then
        back=$engines/$(folder_name "$(recorded "$1/old" NAME)")/$(recorded "$1/old" BUNDLE_SHA256)
        [ -e "$back" ] || mv -T -- "$1/old" "$back"
    fi
    rm -rf -- "$1"
}

clean_up() {
    stop_all
    [ -z "${work:-}" ] || [ ! -d "$work" ] || drop_work_folder "$work"
}

unpack() {
    refuse_other_files "$bundle"
    hash=$(sha256_of "$bundle")
    list_bundle "$bundle" "$work/list" 2>"$work/refused" || fail 2 "$bundle" "$(head -n 1 "$work/refused")" \
        "a bundle as trt-opt bundle wrote it"
    # The files twice (bundle and result), an engine of up to twice the model, logs.
    needed=$(awk '{ all += $1 } $2 == "model.onnx" { all += 2 * $1 } END { print int(2 * all / 1048576) + 32 }' \
        "$work/list")
    have=$(free_mib "$work")
    [ "$have" -ge "$needed" ] ||
        fail 5 "$place" "$needed MiB are needed, $have MiB are free" "free space, or --engines on another disk"
    unpack_bundle "$bundle" "$work/bundle" "$work/list"
    [ "$(sha256_of "$bundle")" = "$hash" ] || fail 2 "$bundle" "changed while it was read" "copy it, then build"
    read_conf "$work/bundle/build.conf"
    refuse_missing_parts "$work/bundle"
    [ "$(conf PRECISION)" != int8-implicit ] || [ -f "$work/bundle/calibration.cache" ] ||
        fail 2 calibration.cache "implicit INT8 needs one, and it is not there" "bundle again"
    name=$(folder_name "$(conf NAME)")
    result=$engines/$name/$hash
}

check_board() {
    model=$(board_model)
    family=$(board_family)
    [ -n "$model" ] || fail 5 /proc/device-tree/model "is not there: this is no Jetson" "trt-opt build app.bundle"
    tell "board: $model; L4T $(l4t_release); power mode $(power_mode)"
    wanted_board=$(conf BOARD)
    if [ -n "$wanted_board" ]; then
        wanted_family=$(family_named "$wanted_board")
        [ -n "$wanted_family" ] && [ "$wanted_family" = "$family" ] ||
            fail 3 "$model" "the bundle is for '$wanted_board'" "bundle again: --target tensorrt@${family:-BOARD}"
    fi
    wanted_capability=$(conf CAPABILITY)
    [ -z "$wanted_capability" ] || [ -z "$family" ] && return 0
    case " $(capabilities_of "$family") " in
    *" $wanted_capability "*) ;;
    *) fail 3 "$model" "has compute capability $(capabilities_of "$family"), the bundle is for $wanted_capability" \
        "bundle again: --target tensorrt@$family" ;;
    esac
}

# Sets what builds: `python` and `trt-opt`, or `trtexec`; and the TensorRT version.
choose_builder() {
    trtexec=$(find_trtexec "$asked_trtexec") || exit $?
    version=$(tensorrt_version "$trtexec")
    python=''
    if [ -n "$asked_python" ] || [ -z "$asked_trtexec" ]; then
        python=$(find_python "$asked_python") || exit $?
    fi
    [ -z "$python" ] || take_version_of_python
    refuse_version "$version"
    [ -n "$python" ] || [ -n "$trtexec" ] ||
        fail 5 trtexec "is not here, and neither is trt-opt with a Python that has TensorRT" \
            "apt-get install libnvinfer-bin, or --trtexec PATH"
    tell "TensorRT $version through ${python:+trt-opt and }${python:-$trtexec}"
}

# A Python may have a TensorRT of its own; trtexec runs the samples only if that is its version too.
take_version_of_python() {
    found=$("$python" -c 'import tensorrt; print("TensorRT", tensorrt.__version__)' 2>/dev/null |
        sed -n 's/^TensorRT \([0-9][0-9.]*\).*/\1/p' | cut -d . -f 1-3)
    [ -n "$found" ] && [ "$found" != "$version" ] || return 0
    [ -z "$version" ] || tell "$python has TensorRT $found, and this machine $version: no trtexec"
    version=$found trtexec=''
}

# find_python [ASKED]: a Python with TensorRT, where trt-opt is here too.
find_python() {
    if ! command -v trt-opt >/dev/null 2>&1; then
        [ -z "$1" ] || fail 5 trt-opt "is not on PATH, and --tensorrt-python needs it" "--trtexec PATH instead"
        return 0
    fi
    for candidate in ${1:+"$1"} "${TRT_OPT_TENSORRT_PYTHON:-}" python3; do
        found=$(program "${candidate:-python3}")
        if [ -n "$found" ] && "$found" -c 'import tensorrt' >/dev/null 2>&1; then
            printf '%s\n' "$found"
            return 0
        fi
        [ "$candidate" != "$1" ] || [ -z "$1" ] || fail 5 "$1" "is no Python that has TensorRT" "trt-opt doctor"
    done
}

# Whole, good, and built by this TensorRT on such a board: an engine is of no use to another.
built_already() {
    [ -d "$result" ] && hashes_hold "$result" && [ "$(recorded "$result" VERDICT)" = PASS ] &&
        [ "$(recorded "$result" TENSORRT)" = "$version" ] && [ "$(recorded "$result" BOARD_MODEL)" = "$model" ]
}

# Measured nowhere yet: CUDA and TensorRT's libraries take 0.5 GiB or so, a builder holds the weights several times.
check_memory() {
    available=$(memory_mib MemAvailable)
    swap=$(memory_mib SwapFree)
    needed=$((512 + 4 * $(conf MODEL_BYTES) / 1048576))
    tell "memory: $available MiB available, $swap MiB swap free; about $needed MiB and the workspace are needed"
    if [ $((available + swap)) -lt "$needed" ]; then
        [ "$force" = yes ] || fail 5 memory "$((available + swap)) MiB with swap, about $needed MiB are needed" \
            "stop the desktop (sudo systemctl isolate multi-user.target), add swap, or --force"
        warn "memory looks too small; going on because of --force"
    fi
    left=$((available > needed + 64 ? available - needed : 64))
    bundled=$(conf WORKSPACE_MIB)
    [ "$bundled" -gt 0 ] || bundled=1024
    [ -n "$workspace" ] || workspace=$((bundled < left ? bundled : left))
    [ "$workspace" -ne "$bundled" ] || return 0
    tell "workspace: $workspace MiB instead of $bundled"
}

# What trt-opt sees to itself.
prepare_for_trtexec() {
    refuse_options "$version"
    [ "$(conf PRECISION)" = int8-implicit ] || return 0
    refuse_cache "$work/bundle/calibration.cache"
    cache_for "$version" "$work/bundle/calibration.cache" "$work/result/calibration.cache"
}

# run_builder WORKSPACE_MIB LEVEL: one attempt.
run_builder() {
    log=$work/result/build.log
    if [ -n "$python" ]; then
        printf '%s\n' "$bundle" --output "$work/store" --tensorrt-python "$python" --timeout-s "$timeout_s" \
            --workspace-mib "$1" ${2:+--optimization-level "$2"} >"$work/options"
        run_in "$work" "$log" "$work/options" timeout -k 10 "$timeout_s" trt-opt build
    else
        build_options "$version" "$1" "$2" >"$work/options"
        run_in "$work" "$log" "$work/options" timeout -k 10 "$timeout_s" "$trtexec" --onnx=bundle/model.onnx \
            --saveEngine=result/model.engine
    fi
}

build() {
    level=$(conf OPTIMIZATION_LEVEL)
    version_at_least "$version" 8.6 || level=''
    ladder "$version" "$workspace" "$level" >"$work/ladder"
    attempt=0
    while read -r rung_workspace rung_level; do
        attempt=$((attempt + 1))
        tell "building: workspace $rung_workspace MiB, optimisation level ${rung_level:-as TensorRT has it}"
        started=$(seconds_up)
        run_builder "$rung_workspace" "$rung_level"
        seconds=$(($(seconds_up) - started))
        [ "$status" -ne 0 ] || { take_engine; return 0; }
        refuse_failure
        warn "attempt $attempt ran out of memory after $seconds s"
    done <"$work/ladder"
    fail 4 "$bundle" "memory ran out at every step of the ladder" \
        "stop other programs and the desktop, add swap (docs/jetson.md), or a smaller model"
}

# Ends the run unless the failed attempt was about memory, and so worth another.
refuse_failure() {
    [ "$seconds" -lt "$timeout_s" ] ||
        { keep_log; fail 4 "$bundle" "not built within $timeout_s s" "--timeout-s, or a lower optimisation level"; }
    out_of_memory "$status" "$work/result/build.log" && return 0
    keep_log
    case ${python:+trt-opt}$status in
    trt-opt1) fail 1 "$bundle" "trt-opt found the engine's outputs wrong" "the log: $log" ;;
    trt-opt[235]) fail "$status" "$bundle" "trt-opt does not build it here" "the log, or --trtexec; $log" ;;
    esac
    fail 4 "$bundle" "building failed with exit code $status" "the log: $log"
}

# A log outlives a failure, beside the engines; the next success of this bundle removes it.
keep_log() {
    log=$engines/$name.$hash.failed.log
    tell_log "the build" "$work/result/build.log"
    cp -- "$work/result/build.log" "$log"
}

# Where trt-opt built, the engine is in a store of its own.
take_engine() {
    if [ -n "$python" ]; then
        found=$(find "$work/store" -type f -name '*.engine' | head -n 1)
        [ -z "$found" ] || mv -T -- "$found" "$work/result/model.engine"
        cache=${found%/*}/calibration.cache
        [ -z "$found" ] || [ ! -f "$cache" ] || cp -- "$cache" "$work/result/"
    elif [ "$(conf PRECISION)" = int8-implicit ]; then
        refuse_own_calibration "$work/result/build.log"
    fi
    [ -s "$work/result/model.engine" ] ||
        fail 4 "$bundle" "the builder ended well but wrote no engine" "another TensorRT"
}

verify() {
    cp -R -- "$work/bundle/samples" "$work/bundle/build.conf" "$work/result/"
    if [ -z "$trtexec" ]; then
        # trt-opt ran the samples itself and would have ended with 1.
        printf '%s\n' VERIFIED_BY=trt-opt "LEAST_SQNR_DB=$(conf LEAST_SQNR_DB)" VERDICT=PASS >"$work/scratch/verdict"
        return 0
    fi
    tell "running the engine on $(conf SAMPLES) samples"
    verify_engine "$trtexec" "$version" "$work/result" "$work/scratch"
    passed "$work/scratch/verdict" || fail 1 "$bundle" "the engine's outputs are not those of the model" \
        "the figures above; bundle with INT8 kept out of more layers, or another TensorRT"
}

# The first line of the cache that TensorRT was given, which names the version it is for.
cache_read() {
    [ ! -f "$work/result/calibration.cache" ] || head -n 1 "$work/result/calibration.cache"
}

record() {
    {
        printf '%s\n' FORMAT=1 "NAME=$(conf NAME)" "BUNDLE_SHA256=$hash" \
            "ENGINE_SHA256=$(sha256_of "$work/result/model.engine")" "BUILT_AT=$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
            "BUILD_SECONDS=$seconds" "ATTEMPT=$attempt" "WORKSPACE_MIB=$rung_workspace" "LEVEL=$rung_level" \
            "PRECISION=$(conf PRECISION)" "BOARD_MODEL=$model" "L4T=$(l4t_release)" "KERNEL=$(uname -sr)" \
            "TENSORRT=$version" "BUILT_WITH=${python:+trt-opt }${python:-$trtexec}" \
            "CALIBRATION_CACHE=$(cache_read)" "POWER_MODE=$(power_mode)" \
            "MEMORY_AVAILABLE_MIB=$(memory_mib MemAvailable)" "SWAP_FREE_MIB=$(memory_mib SwapFree)"
        cat -- "$work/scratch/verdict" "$work/scratch/before" "$work/scratch/during"
        readings AFTER
        locked_clocks | sed 's/^/JETSON_CLOCKS=/'
        tegrastats_line | sed 's/^/TEGRASTATS=/'
    } | tr -d '\000-\011\013-\037' >"$work/result/record.conf"
}

land() {
    list_hashes "$work/result"
    chmod -R u=rwX,go=rX -- "$work/result"
    settle "$work/result"
    hashes_hold "$work/result" || fail 4 "$work/result" "what was written reads back differently" "look at dmesg"
    mkdir -p -- "$engines/$name"
    # --force, or a result that was damaged: set aside until the new one is in place.
    [ ! -e "$result" ] || mv -T -- "$result" "$work/old"
    rename_into "$work/result" "$result"
    rm -rf -- "$work/old" "$engines/$name.$hash.failed.log"
}

say_plan() {
    tell "would keep the engine in $result, after building with"
    if [ -n "$python" ]; then
        tell "    trt-opt build $bundle --tensorrt-python $python --workspace-mib $workspace"
    else
        level=$(conf OPTIMIZATION_LEVEL)
        version_at_least "$version" 8.6 || level=''
        tell "    $trtexec --onnx=bundle/model.onnx --saveEngine=model.engine $(
            build_options "$version" "$workspace" "$level" | paste -s -d ' ' -)"
    fi
}

main() {
    read_arguments "$@"
    need_tools awk cp cut date dd df find flock grep mktemp mv paste sed sha256sum sort sync tail tar timeout tr
    umask 022
    end_with clean_up
    make_work_folder
    unpack
    check_board
    choose_builder
    [ -n "$python" ] || prepare_for_trtexec
    if [ "$force" = no ] && built_already; then
        tell "this bundle's engine is there already (--force builds it again)"
        printf '%s\n' "$result"
        return 0
    fi
    check_memory
    if [ "$dry_run" = yes ]; then say_plan; return 0; fi
    readings BEFORE >"$work/scratch/before"
    start_sampling "$work/scratch/during"
    build
    verify
    stop_sampling
    record
    land
    printf '%s\n' "$result"
}

main "$@"
