# shellcheck shell=sh disable=SC2154 # `status` is set in running.sh
# An engine's outputs against those of the float model: signal to noise, in dB, pooled over the samples.

# values_of NAME JSON: the numbers of one output, one a line, of what trtexec --exportOutput wrote.
values_of() {
    tr ',' '\n' <"$2" | awk -v wanted="$1" '
        /"name" : "/ { name = $0; sub(/^.*"name" : "/, "", name); sub(/"[ \t]*$/, "", name); inside = 0; next }
        /"values" : \[/ { sub(/^.*\[/, ""); inside = (name == wanted) }
        inside { ends = /\]/; gsub(/[] \t}]/, ""); if ($0 != "") print; if (ends) inside = 0 }'
}

# energies EXPECTED ACTUAL: "numbers signal noise unusable". A line without two numbers that a float32 can be is
# unusable: the squares of larger ones overflow.
energies() {
    paste -d ' ' "$1" "$2" | awk '
        function finite(text) {
            return text ~ /^[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?$/ && text + 0 < 3.5e38 && text + 0 > -3.5e38
        }
        NF != 2 || !finite($1) || !finite($2) { unusable++; next }
        { numbers++; signal += $1 * $1; noise += ($1 - $2) * ($1 - $2) }
        END { printf "%d %.17g %.17g %d\n", numbers, signal, noise, unusable }'
}

# verdict LEAST_DB SAMPLES OUTPUTS: reads "output numbers signal noise unusable", prints the record's lines.
# Whatever is not shown to be good is FAIL: an output or sample that is missing, nothing compared, NaN.
verdict() {
    awk -v least="$1" -v samples="$2" -v outputs="$3" '
        { seen[$1]++; unusable[$1] += $5; signal[$1] += $3; noise[$1] += $4; if (!($2 > 0) || $0 ~ /inf|nan/) unusable[$1]++ }
        END {
            good = 0
            for (k = 0; k < outputs; k++) {
                if (seen[k] == samples && unusable[k] == 0 && noise[k] == 0) { db = "inf"; fine = 1 }
                else if (seen[k] == samples && unusable[k] == 0 && signal[k] > 0 && noise[k] > 0) {
                    db = 10 * log(signal[k] / noise[k]) / log(10)
                    # (mawk takes every comparison with NaN for true.)
                    fine = (sprintf("%f", db) ~ /^-?[0-9]/ && db >= least + 0)
                    db = sprintf("%.2f", db)
                } else { db = "nan"; fine = 0 }
                print "OUTPUT_" k "_SQNR_DB=" db
                print "OUTPUT_" k "_UNUSABLE=" unusable[k] + 0
                if (fine) good++
            }
            print "LEAST_SQNR_DB=" least
            print "VERDICT=" (outputs > 0 && samples > 0 && good == outputs ? "PASS" : "FAIL")
        }'
}

# verify_engine TRTEXEC VERSION FOLDER SCRATCH: runs FOLDER/model.engine on every sample of FOLDER, after read_conf;
# writes the record's lines to SCRATCH/verdict. A run that fails leaves its sample uncounted: the verdict is FAIL.
verify_engine() {
    : >"$4/energies"
    for sample in "$3"/samples/*; do
        rm -f -- "$4/outputs.json"
        { run_options "$2" "${sample##*/}" && echo "--exportOutput=$4/outputs.json"; } >"$4/options"
        run_in "$3" "$4/run.log" "$4/options" timeout -k 10 600 "$1" --loadEngine=model.engine
        [ "$status" -eq 0 ] && [ -s "$4/outputs.json" ] || { tell_log "sample ${sample##*/}" "$4/run.log"; continue; }
        for number in $(numbers_below "$(conf OUTPUTS)"); do
            values_of "$(conf "OUTPUT_${number}_NAME")" "$4/outputs.json" >"$4/values"
            echo "$number $(energies "$sample/output-$number.txt" "$4/values")" >>"$4/energies"
        done
    done
    verdict "$(conf LEAST_SQNR_DB)" "$(conf SAMPLES)" "$(conf OUTPUTS)" <"$4/energies" >"$4/verdict"
    echo VERIFIED_BY=trtexec >>"$4/verdict"
}

# passed FILE: whether a verdict was reached, and is PASS; otherwise the figures are told.
passed() {
    if grep -q '^VERDICT=PASS$' "$1"; then return 0; fi
    grep '_SQNR_DB=\|_UNUSABLE=' "$1" >&2 || :
    return 1
}
