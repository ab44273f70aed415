# shellcheck shell=sh disable=SC2154 # `root` is set in board.sh
# NVIDIA's trtexec: which version this is, what it is told for a bundle, and what is tried when memory runs out.
# Options by version: samples/common/sampleOptions.cpp of NVIDIA/TensorRT at 8.5.3, 8.6.1, 10.3, 10.16 and 11.1.

# find_trtexec [ASKED]: prints its path; nothing where there is none.
find_trtexec() {
    if [ -n "${1:-}" ]; then
        asked=$(program "$1")
        [ -n "$asked" ] || fail 5 "$1" "no such program" "--trtexec /usr/src/tensorrt/bin/trtexec"
        printf '%s\n' "$asked"
    elif command -v trtexec >/dev/null 2>&1; then
        command -v trtexec
    elif [ -x "$root/usr/src/tensorrt/bin/trtexec" ]; then
        echo "$root/usr/src/tensorrt/bin/trtexec"
    fi
}

# tensorrt_version [TRTEXEC]: 10.3.0, from trtexec's banner ([TensorRT v100300]; v8601 before 10), else from dpkg.
tensorrt_version() {
    banner=
    [ -z "${1:-}" ] || banner=$(timeout 60 "$1" --help 2>&1 </dev/null |
        sed -n 's/.*\[TensorRT v\([0-9]*\)\].*/\1/p' | head -n 1)
    if [ -n "$banner" ]; then
        echo "$banner" | awk '{ m = $1 < 10000 ? 1000 : 10000; printf "%d.%d.%d\n", $1 / m, $1 % m / 100, $1 % 100 }'
    elif command -v dpkg-query >/dev/null 2>&1; then
        dpkg-query -W -f='${Package} ${Version}\n' 'libnvinfer[0-9]*' libnvinfer-bin 2>/dev/null |
            awk '$1 ~ /^libnvinfer(-bin|[0-9]+)$/ && $2 != "" { print $2 }' |
            sed 's/-.*//' | cut -d . -f 1-3 | head -n 1
    fi
}

# version_at_least HAVE WANT: compares as far as WANT is given.
version_at_least() {
    awk -v have="$1" -v want="$2" 'BEGIN {
        split(have, h, "."); n = split(want, w, ".")
        for (i = 1; i <= n; i++) if (h[i] + 0 != w[i] + 0) exit h[i] + 0 < w[i] + 0
        exit 0
    }'
}

# version_within HAVE WANT: the same as far as WANT is given: 8.6 holds 8.6.2, not 8.5.3 and not 10.3.0.
version_within() {
    awk -v have="$1" -v want="$2" 'BEGIN {
        split(have, h, "."); n = split(want, w, ".")
        for (i = 1; i <= n; i++) if (h[i] + 0 != w[i] + 0) exit 1
        exit 0
    }'
}

# refuse_version VERSION: what this TensorRT cannot do for the bundle whose build.conf was read.
refuse_version() {
    [ -n "$1" ] || fail 5 TensorRT "is not installed here" "apt-get install tensorrt libnvinfer-bin (part of JetPack)"
    version_at_least "$1" 8.5 || fail 5 "TensorRT $1" "8.5 is the oldest that is supported" "JetPack 5.1 or newer"
    wanted=$(conf TENSORRT)
    [ -z "$wanted" ] || version_within "$1" "$wanted" ||
        fail 5 "TensorRT $1" "the bundle was made for $wanted" "the JetPack with that, or bundle again for tensorrt:${1%.*}"
    case $(conf STRONGLY_TYPED)-$(conf PRECISION) in
    yes-*) version_at_least "$1" 10.0 ||
        fail 3 "TensorRT $1" "knows no strongly typed networks" "bundle again for tensorrt:${1%.*}" ;;
    no-fp32) ;;
    no-*) ! version_at_least "$1" 11.0 ||
        fail 3 "TensorRT $1" "has no precision flags, which this bundle needs" "bundle again for tensorrt:${1%.*}" ;;
    esac
}

# refuse_cache FILE: trtexec reads caches of one algorithm only (RndInt8Calibrator in sampleEngines.cpp).
refuse_cache() {
    case $(head -n 1 "$1") in
    TRT-*-EntropyCalibration2*) ;;
    *) fail 3 calibration.cache "trtexec takes EntropyCalibration2 only, this is: $(head -n 1 "$1" | cut -c 1-60)" \
        "--tensorrt-python with trt-opt, or bundle again without --calibrator native-minmax" ;;
    esac
}

# cache_for VERSION FILE COPY: the cache with that version's number in its first line (8602 for 8.6.2, 100300 for
# 10.3.0), without which TensorRT takes it for another's and ignores it.
cache_for() {
    awk -v version="$1" '
        BEGIN { split(version, v, "."); number = v[1] * (v[1] < 10 ? 1000 : 10000) + v[2] * 100 + v[3] }
        NR == 1 { sub(/^TRT-[0-9]+-/, "TRT-" number "-") }
        { print }' "$2" >"$3"
}

# tactic_sources VERSION: what that version has, comma-separated.
tactic_sources() {
    if version_at_least "$1" 11.0; then echo EDGE_MASK_CONVOLUTIONS,JIT_CONVOLUTIONS
    else echo CUBLAS,CUBLAS_LT,CUDNN,EDGE_MASK_CONVOLUTIONS,JIT_CONVOLUTIONS; fi
}

# refuse_options VERSION: what build.conf asks for and this trtexec has no option for.
refuse_options() {
    for asked in $(conf TACTIC_SOURCES | tr , ' '); do
        case ,$(tactic_sources "$1"), in
        *,"$asked",*) ;;
        *) fail 3 "TensorRT $1" "has no tactic source $asked: $(tactic_sources "$1")" "bundle again without it" ;;
        esac
    done
    ! version_at_least "$1" 8.6 || return 0
    for key in VERSION_COMPATIBLE HARDWARE_COMPATIBLE; do
        [ "$(conf $key)" != yes ] ||
            fail 3 "TensorRT $1" "cannot build what the bundle asks for with $key" "8.6 or newer, or bundle again without"
    done
}

# refuse_own_calibration LOG: TensorRT that does not take the cache goes on to calibrate, for which trtexec has no data.
refuse_own_calibration() {
    ! grep -q 'Starting Calibration' "$1" ||
        fail 4 calibration.cache "TensorRT did not take it: its log says Starting Calibration" \
            "bundle again for this version"
}

# shape_list KEY: name:1x3x224x224,… of INPUT_K_KEY; nothing for static inputs.
shape_list() {
    for number in $(numbers_below "$(conf INPUTS)"); do
        [ -z "$(conf "INPUT_${number}_MIN")" ] ||
            printf '%s:%s\n' "$(conf "INPUT_${number}_NAME")" "$(conf "INPUT_${number}_$1")"
    done | paste -s -d , -
}

# build_options VERSION WORKSPACE_MIB LEVEL: one option a line. (No value holds a newline: build.conf was checked.)
build_options() {
    echo "--memPoolSize=workspace:$2"
    case $(conf STRONGLY_TYPED)-$(conf PRECISION) in
    yes-*) version_at_least "$1" 11.0 || echo --stronglyTyped ;;
    no-fp16) echo --fp16 ;;
    no-int8-explicit) echo --int8; [ "$(conf FP16)" = no ] || echo --fp16 ;;
    no-int8-implicit) printf '%s\n' --int8 --calib=result/calibration.cache; [ "$(conf FP16)" = no ] || echo --fp16 ;;
    esac
    float32_options
    [ -z "$3" ] || echo "--builderOptimizationLevel=$3"
    if version_at_least "$1" 8.6; then echo --skipInference; else echo --buildOnly; fi
    if [ -n "$(shape_list MIN)" ]; then
        printf '%s\n' "--minShapes=$(shape_list MIN)" "--optShapes=$(shape_list OPT)" "--maxShapes=$(shape_list MAX)"
    fi
    compatible_options
    tactic_options "$1"
    dla_options
}

compatible_options() {
    [ "$(conf VERSION_COMPATIBLE)" != yes ] || echo --versionCompatible
    [ "$(conf HARDWARE_COMPATIBLE)" != yes ] || echo --hardwareCompatibilityLevel=ampere+
}

# tactic_options VERSION: trtexec adds to and takes from what is on by itself, so every source of the version is named.
tactic_options() {
    [ -n "$(conf TACTIC_SOURCES)" ] || return 0
    awk -v asked="$(conf TACTIC_SOURCES)" -v have="$(tactic_sources "$1")" 'BEGIN {
        n = split(asked, a, ","); for (i = 1; i <= n; i++) on[a[i]] = 1
        n = split(have, h, ",")
        for (i = 1; i <= n; i++) printf "%s%s%s", i == 1 ? "--tacticSources=" : ",", h[i] in on ? "+" : "-", h[i]
        print ""
    }'
}

# Layers that FP16 cannot hold. (In a strongly typed network the graph itself says so.)
float32_options() {
    [ "$(conf STRONGLY_TYPED)" = no ] && [ -n "$(conf FLOAT32_LAYERS)" ] || return 0
    layers=$(conf FLOAT32_LAYERS | sed 's/,/:fp32,/g; s/$/:fp32/')
    printf '%s\n' --precisionConstraints=obey "--layerPrecisions=$layers" "--layerOutputTypes=$layers"
}

dla_options() {
    [ -z "$(conf DLA)" ] || echo "--useDLACore=$(conf DLA)"
    [ -z "$(conf DLA)" ] || [ "$(conf GPU_FALLBACK)" != yes ] || echo --allowGPUFallback
}

# run_options VERSION SAMPLE: from 11.0 on, transfers are off, and spinning and CUDA graphs on, unless told otherwise.
run_options() {
    printf '%s\n' --iterations=1 --warmUp=0 --duration=0 --avgRuns=1
    ! version_at_least "$1" 11.0 || printf '%s\n' --includeDataTransfers --noSpinWait --noCudaGraph
    for number in $(numbers_below "$(conf INPUTS)"); do
        printf '%s:%s\n' "$(conf "INPUT_${number}_NAME")" "samples/$2/input-$number.bin"
    done | paste -s -d , - | sed 's/^/--loadInputs=/'
    # An engine with a runtime of its own is code, which has to be allowed.
    [ "$(conf VERSION_COMPATIBLE)" != yes ] || echo --versionCompatible
    [ -z "$(shape_list SHAPE)" ] || echo "--shapes=$(shape_list SHAPE)"
    dla_options
}

# ladder VERSION WORKSPACE_MIB LEVEL: "workspace level" of every attempt; an empty level is TensorRT's own (3).
ladder() {
    echo "$2 $3"
    [ "$2" -lt 32 ] || echo "$(($2 / 2)) $3"
    [ "$2" -lt 64 ] || echo "$(($2 / 4)) $3"
    version_at_least "$1" 8.6 || return 0
    for lower in 2 0; do
        [ "${3:-3}" -le "$lower" ] || echo "$(($2 < 64 ? $2 : $2 / 4)) $lower"
    done
}

# out_of_memory STATUS LOG: whether a build ended for want of memory. The kernel's OOM killer sends SIGKILL; where it
# chose the process that trt-opt builds in, trt-opt says that memory ran out.
out_of_memory() {
    [ "$1" -eq 137 ] ||
        grep -q -i -E 'out ?of ?memory|memory ran out|could not find any implementation|cudaErrorMemoryAllocation|std::bad_alloc' "$2"
}
