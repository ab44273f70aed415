# shellcheck shell=sh
# What this board is and how it does. TRT_OPT_ROOT puts another tree before /proc, /sys, /etc and /usr.

root=${TRT_OPT_ROOT:-}

# The device tree ends its strings with NUL.
device_tree() {
    [ ! -r "$root/proc/device-tree/$1" ] || tr '\000' '\n' <"$root/proc/device-tree/$1"
}

board_model() { device_tree model | tr -d '\n'; }

# The family, from the chip: carrier boards of other makers change the model's name, not the chip's.
board_family() {
    case $(device_tree compatible) in
    *nvidia,tegra264*) echo thor ;;
    *nvidia,tegra234*) echo orin ;;
    *nvidia,tegra194*) echo xavier ;;
    *nvidia,tegra186*) echo tx2 ;;
    *nvidia,tegra210*) echo nano ;;
    *) family_named "$(board_model)" ;;
    esac
}

# family_named TEXT: orin of "NVIDIA Jetson Orin Nano Developer Kit" and of "orin-nano"; nothing if unknown.
family_named() {
    case $(printf '%s' "$1" | tr '[:upper:]' '[:lower:]') in
    *thor*) echo thor ;;
    *orin*) echo orin ;;
    *xavier* | jetson-agx) echo xavier ;;
    *tx2*) echo tx2 ;;
    *nano*) echo nano ;;
    esac
}

# The compute capabilities of a family; Thor's number depends on the CUDA version.
capabilities_of() {
    case $1 in
    thor) echo "11.0 10.1" ;;
    orin) echo 8.7 ;;
    xavier) echo 7.2 ;;
    tx2) echo 6.2 ;;
    nano) echo 5.3 ;;
    esac
}

# R36.4.3 of "# R36 (release), REVISION: 4.3, …".
l4t_release() {
    [ ! -r "$root/etc/nv_tegra_release" ] ||
        sed -n 's/^# R\([0-9][0-9]*\) (release), REVISION: \([0-9.]*\),.*/R\1.\2/p;q' "$root/etc/nv_tegra_release"
}

# memory_mib FIELD: MemTotal, MemAvailable, SwapFree … in MiB.
memory_mib() {
    awk -v field="$1:" '$1 == field { found = int($2 / 1024) } END { print found + 0 }' "$root/proc/meminfo"
}

# free_mib FOLDER: what the file system of FOLDER can still take.
free_mib() { df -P -k -- "$1" | awk 'NR == 2 { print int($4 / 1024) }'; }


power_mode() {
    mode=$(command -v nvpmodel >/dev/null 2>&1 && timeout 10 nvpmodel -q 2>/dev/null |
        sed -n 's/^NV Power Mode: *//p' | head -n 1)
    printf '%s\n' "${mode:-unknown}"
}

# jetson_clocks answers root only.
locked_clocks() {
    command -v jetson_clocks >/dev/null 2>&1 || { echo "jetson_clocks is not here"; return 0; }
    timeout 20 jetson_clocks --show 2>/dev/null || echo "not readable as $(id -un)"
}

tegrastats_line() {
    line=$(command -v tegrastats >/dev/null 2>&1 && timeout 5 tegrastats --interval 500 2>/dev/null | head -n 1)
    printf '%s\n' "${line:-unknown}"
}

# readings KEY: every clock and temperature that this user may read, one KEY=what name value a line.
readings() {
    for file in "$root"/sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq; do
        [ ! -r "$file" ] || printf '%s=cpu_khz %s %s\n' "$1" "$(name_above "$file" 2)" "$(head -n 1 "$file")"
    done
    for file in "$root"/sys/class/devfreq/*/cur_freq; do
        [ ! -r "$file" ] || printf '%s=gpu_hz %s %s\n' "$1" "$(name_above "$file" 1)" "$(head -n 1 "$file")"
    done
    file=$root/sys/kernel/debug/bpmp/debug/clk/emc/rate
    [ ! -r "$file" ] || printf '%s=emc_hz emc %s\n' "$1" "$(head -n 1 "$file")"
    for file in "$root"/sys/class/thermal/thermal_zone*; do
        # A sensor that is switched off answers EAGAIN.
        value=$(head -n 1 "$file/temp" 2>/dev/null) || continue
        [ -z "$value" ] || printf '%s=temperature_mc %s %s\n' "$1" "$(head -n 1 "$file/type")" "$value"
    done
}

# name_above PATH N: the name of the folder N levels above.
name_above() { printf '%s\n' "$1" | awk -F / -v up="$2" '{ print $(NF - up) }'; }
