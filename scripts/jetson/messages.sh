# shellcheck shell=sh
# What the scripts say and how they end. Exit codes are those of `trt-opt`: 0 done, 1 a gate said no, 2 the request is
# wrong, 3 this cannot be handled as asked, 4 a stage failed, 5 something is missing here.

# Sorting, numbers and character classes do not depend on who runs this; nor does tar.
export LC_ALL=C
unset TAR_OPTIONS POSIXLY_CORRECT

# Progress goes to standard error: standard output carries the result alone.
tell() { printf '%s\n' "$*" >&2; }

warn() { printf 'warning: %s\n' "$*" >&2; }

# fail CODE WHERE WHAT TRY
fail() {
    printf '%s: %s\n  try: %s\n' "$2" "$3" "$4" >&2
    exit "$1"
}

# need_tools TOOL…: what a JetPack installation has, but a cut-down image may lack.
need_tools() {
    for needed in "$@"; do
        command -v "$needed" >/dev/null 2>&1 ||
            fail 5 "$needed" "this program is missing here" "install it (coreutils, tar, util-linux: apt-get install)"
    done
}

# whole_number NAME VALUE: refuses what is no positive whole number of at most nine digits.
whole_number() {
    case $2 in
    '' | *[!0-9]* | 0* | ??????????*) fail 2 "$1" "'$2' is not a positive whole number" "for example $1 1024" ;;
    esac
}

# absolute PATH: holds in every folder, and no program takes it for an option.
absolute() {
    case $1 in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$PWD/$1" ;;
    esac
}

# program NAME_OR_PATH: its path, looked up on PATH where it is only a name; nothing where it cannot be run.
program() {
    case $1 in
    */*) [ ! -f "$1" ] || [ ! -x "$1" ] || absolute "$1" ;;
    *) command -v "$1" || : ;;
    esac
}

# sha256_of FILE. (Standard input, because sha256sum escapes odd file names.)
sha256_of() { sha256sum <"$1" | cut -c 1-64; }
