# shellcheck shell=sh
# A bundle: an uncompressed ustar archive of regular files whose names are known beforehand. Nothing is unpacked before
# its list was judged, nothing is used before its hash was compared, and build.conf is read, never run.

# list_bundle FILE LIST: writes "bytes name" of every entry to LIST; refuses the archive if one entry is not what a
# bundle may hold.
list_bundle() {
    tar -P --force-local --numeric-owner --quoting-style=escape -tvf "$1" >"$2.tar" 2>/dev/null ||
        { echo "is cut short or damaged" >&2; return 1; }
    awk '
        function refuse(why) { print why > "/dev/stderr"; refused = 1; exit 1 }
        $1 !~ /^-[rwx-]*$/ { refuse("holds something that is not a plain file: " $0) }
        NF != 6 || $3 !~ /^[0-9]+$/ { refuse("holds an entry with an odd name: " $0) }
        { name = $6 }
        name !~ /^(SHA256SUMS|bundle\.json|build\.conf|model\.onnx|calibration\.cache|recipe\.toml)$/ &&
        name !~ /^samples\/[0-9][0-9][0-9]\/(input-[0-9]+\.bin|output-[0-9]+\.(bin|txt)|quantised-[0-9]+\.txt)$/ {
            refuse("holds a file that no bundle has: " name)
        }
        name in seen { refuse("holds twice: " name) }
        NR == 1 && name != "SHA256SUMS" { refuse("does not begin with SHA256SUMS") }
        { seen[name] = 1; print $3, name }
        END {
            if (refused) exit 1
            if (!("build.conf" in seen) || !("model.onnx" in seen)) refuse("has no build.conf or no model.onnx")
        }' "$2.tar" >"$2"
}

# refuse_other_files FILE: not there, not an archive, or compressed (its true size would be unknown).
refuse_other_files() {
    [ -f "$1" ] && [ -r "$1" ] || fail 2 "$1" "no such file, or it may not be read" "the path of an app.bundle"
    [ "$(dd if="$1" bs=1 skip=257 count=5 2>/dev/null)" = ustar ] ||
        fail 2 "$1" "is not a bundle (no ustar archive)" "make one: trt-opt bundle, and copy it in binary mode"
}

# unpack_bundle FILE FOLDER LIST: every file that LIST names, into the empty FOLDER, compared with its hash.
unpack_bundle() {
    cut -d ' ' -f 2- "$3" >"$3.names"
    tar --force-local -xf "$1" -C "$2" --no-same-owner --no-same-permissions --keep-old-files -T "$3.names" ||
        fail 4 "$1" "cannot be unpacked" "free space and write access in the folder of --engines"
    chmod -R u=rwX "$2"
    hashes_listed "$2/SHA256SUMS" "$3.names" ||
        fail 2 "$1" "its SHA256SUMS does not list exactly the files that it holds" "copy the bundle again"
    hashes_hold "$2" || fail 2 "$1" "a file is not what SHA256SUMS says: damaged or changed" "copy the bundle again"
}

# hashes_listed SHA256SUMS NAMES: a hash for every name, and for nothing else.
hashes_listed() {
    awk 'NR == FNR { if ($0 != "SHA256SUMS") { wanted[$0] = 1; left++ } next }
        {
            hash = substr($0, 1, 64); name = substr($0, 67)
            if (length(hash) != 64 || hash !~ /^[0-9a-f]+$/ || substr($0, 65, 2) !~ /^ [ *]$/) { wrong = 1; exit }
            if (!(name in wanted)) { wrong = 1; exit }
            delete wanted[name]; left--
        }
        END { exit wrong || left != 0 }' "$2" "$1"
}

# read_conf FILE: refuses a build.conf with a line, key, value or number that is not as agreed; then `conf KEY` answers.
read_conf() {
    conf_file=$1
    said=$(awk -F = '
        function refuse(why) { print "line " NR ": " why; refused = 1; exit 1 }
        { key = $1; value = substr($0, length(key) + 2) }
        index($0, "=") < 2 || key !~ /^[A-Z0-9_]+$/ { refuse("no KEY=value: " $0) }
        value !~ /^[A-Za-z0-9._:,x+@\/ -]*$/ { refuse("a character that no value has: " $0) }
        key in seen { refuse(key " is there twice") }
        { seen[key] = 1 }
        key ~ /^(FORMAT|SAMPLES|INPUTS|OUTPUTS|MODEL_BYTES)$/ && (value !~ /^[1-9][0-9]*$/ || length(value) > 15) {
            refuse(key " is no positive whole number")
        }
        key == "WORKSPACE_MIB" && (value !~ /^[0-9]+$/ || length(value) > 9) { refuse(key " is no whole number") }
        key ~ /^(DLA|OPTIMIZATION_LEVEL)$/ && value !~ /^[0-9]?$/ { refuse(key " is no digit") }
        key ~ /^(STRONGLY_TYPED|GPU_FALLBACK|FP16|VERSION_COMPATIBLE|HARDWARE_COMPATIBLE)$/ && value !~ /^(yes|no)$/ { refuse(key " is neither yes nor no") }
        key == "TACTIC_SOURCES" && value !~ /^([A-Z0-9_]+(,[A-Z0-9_]+)*)?$/ { refuse("no list of tactic sources") }
        key == "PRECISION" && value !~ /^(int8-explicit|int8-implicit|fp16|fp32)$/ { refuse("no such precision") }
        key == "LEAST_SQNR_DB" && value !~ /^-?[0-9]+(\.[0-9]+)?$/ { refuse("LEAST_SQNR_DB is no number") }
        key == "FORMAT" && value != 1 { refuse("format " value ": this script reads format 1") }
        key ~ /_(SHAPE|MIN|OPT|MAX)$/ && value !~ /^([0-9]+(x[0-9]+)*)?$/ { refuse("no shape: " $0) }
        key ~ /_NAME$/ && value == "" { refuse("a tensor without a name") }
        END {
            if (refused) exit 1
            n = split("FORMAT NAME BOARD TENSORRT PRECISION STRONGLY_TYPED WORKSPACE_MIB SAMPLES INPUTS OUTPUTS " \
                "LEAST_SQNR_DB MODEL_BYTES", required, " ")
            for (i = 1; i <= n; i++) if (!(required[i] in seen)) { print required[i] " is missing"; exit 1 }
        }' "$conf_file") || fail 2 build.conf "$said" "a trt-opt and scripts/jetson of the same version, on both sides"
}

# conf KEY: its value; nothing where it has none.
conf() { sed -n "s/^$1=//p" "$conf_file"; }

# refuse_missing_parts FOLDER: what build.conf promises and the folder lacks.
refuse_missing_parts() {
    refuse_missing_names
    [ "$(find "$1/samples" -mindepth 1 -maxdepth 1 -type d 2>/dev/null | wc -l)" -eq "$(conf SAMPLES)" ] ||
        fail 2 build.conf "SAMPLES=$(conf SAMPLES), but the bundle holds another number" "bundle again"
    for sample in "$1"/samples/*; do
        for number in $(numbers_below "$(conf INPUTS)"); do
            [ -f "$sample/input-$number.bin" ] || fail 2 "$sample/input-$number.bin" "is not there" "bundle again"
        done
        for number in $(numbers_below "$(conf OUTPUTS)"); do
            [ -f "$sample/output-$number.txt" ] || fail 2 "$sample/output-$number.txt" "is not there" "bundle again"
        done
    done
}

# A comma separates the tensors in trtexec's options, and it has no way to quote one.
refuse_missing_names() {
    for key in $(numbers_below "$(conf INPUTS)" INPUT_ _NAME) $(numbers_below "$(conf OUTPUTS)" OUTPUT_ _NAME); do
        case $(conf "$key") in
        '') fail 2 build.conf "$key is missing" "bundle again" ;;
        *,*) fail 3 build.conf "$key holds a comma" "rename that tensor in the model, and bundle again" ;;
        esac
    done
}

# numbers_below N [BEFORE [BEHIND]]: 0 to N-1.
numbers_below() {
    awk -v n="$1" -v before="${2:-}" -v behind="${3:-}" 'BEGIN { for (i = 0; i < n; i++) print before i behind }'
}

# folder_name TEXT: TEXT as the name of one folder.
folder_name() { printf '%s\n' "$1" | tr -c 'A-Za-z0-9._+@\n-' '_' | sed 's/^[.-]*//;s/^$/model/'; }
