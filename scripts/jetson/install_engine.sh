#!/bin/sh
# Puts an engine that build_on_device.sh kept in use: beside the one before, by one rename, and back if it fails.
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
usage: install_engine.sh [options] [--] ENGINE_FOLDER TARGET_DIR
       install_engine.sh --rollback [options] TARGET_DIR

Copies ENGINE_FOLDER (as build_on_device.sh printed it) to TARGET_DIR/releases/ID/ and lets TARGET_DIR/current point
there, in one step. What runs uses TARGET_DIR/current/model.engine.

  --check CMD    shell command that tells whether the installed engine works, run after the switch with TRT_OPT_ENGINE
                 set; if it fails, the engine before comes back and CMD runs once more, to restart what uses it.
                 Without it the engine is run on its samples, before the switch.
  --keep N       releases to keep, at least 2 (default: 2)
  --rollback     go back to the engine before
  --trtexec P    run the samples with this trtexec
  --dry-run      check everything, say what would happen, change nothing
  --help         this text

Prints the path of `current`. Exit codes: 0 done, 1 the check said no (the engine before is in use), 2 wrong request or
damaged folder, 3 built for another machine, 4 a step failed, 5 something is missing here.
TEXT
}

read_arguments() {
    check='' keep=2 rollback=no dry_run=no asked_trtexec='' from='' target=''
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h) usage; exit 0 ;;
        --rollback) rollback=yes ;;
        --dry-run) dry_run=yes ;;
        --check | --keep | --trtexec)
            [ $# -ge 2 ] && [ -n "$2" ] || fail 2 "$1" "needs a value" "--help"
            case $1 in
            --check) check=$2 ;;
            --keep) whole_number "$1" "$2"; keep=$2 ;;
            --trtexec) asked_trtexec=$2 ;;
            esac
            shift ;;
        --) shift; break ;;
        -*) fail 2 "$1" "no such option" "--help" ;;
        *) break ;;
        esac
        shift
    done
    [ "$keep" -ge 2 ] || fail 2 --keep "one release leaves none to go back to" "--keep 2"
    [ "$rollback" = no ] || set -- / "$@"
    [ $# -eq 2 ] && [ -n "$1" ] && [ -n "$2" ] || fail 2 arguments "an engine's folder and a target folder are needed" "--help"
    from=$(absolute "$1") target=$(absolute "$2")
}

open_target() {
    if [ "$dry_run" = yes ]; then return 0; fi
    mkdir -p -- "$target/releases" 2>/dev/null ||
        fail 2 "$target" "cannot be made or written to" "sudo, or another folder"
    lock_folder "$target"
    for stale in "$target/releases"/.incoming.* "$target"/.next.*; do
        [ ! -e "$stale" ] && [ ! -L "$stale" ] || rm -rf -- "$stale"
    done
    for link in current previous; do
        [ -L "$target/$link" ] || [ ! -e "$target/$link" ] ||
            fail 2 "$target/$link" "is there and is no link" "move it away, or take another folder"
        case $(readlink -- "$target/$link" || :) in
        '') ;;
        releases/*/* | releases/..) foreign=yes ;;
        releases/*) ;;
        *) foreign=yes ;;
        esac
        [ -z "${foreign:-}" ] || fail 2 "$target/$link" "is a link of somebody else, to $(readlink -- "$target/$link")" \
            "move it away, or take another folder"
    done
}

# An engine whose check was cut off does not stay in use: not known is not good.
clean_up() {
    stop_all
    [ -z "${unchecked:-}" ] || go_back
    [ -z "${incoming:-}" ] || rm -rf -- "$incoming"
    [ -z "${scratch:-}" ] || rm -rf -- "$scratch"
}

check_engine() {
    [ -d "$from" ] || fail 2 "$from" "no such folder" "the path that build_on_device.sh printed"
    hashes_hold "$from" ||
        fail 2 "$from" "a file is missing, new or changed since it was built" "build_on_device.sh again"
    for part in model.engine record.conf build.conf; do
        [ -f "$from/$part" ] || fail 2 "$from/$part" "is not there" "build_on_device.sh again"
    done
    [ "$(recorded "$from" FORMAT)" = 1 ] || fail 2 "$from/record.conf" "is not of format 1" "scripts of one version"
    [ "$(recorded "$from" VERDICT)" = PASS ] ||
        fail 1 "$from" "its recorded verdict is '$(recorded "$from" VERDICT)', not PASS" "build_on_device.sh again"
    engine_hash=$(sha256_of "$from/model.engine")
    [ "$(recorded "$from" ENGINE_SHA256)" = "$engine_hash" ] ||
        fail 2 "$from/model.engine" "is not the engine that was verified" "build_on_device.sh again"
    trtexec=$(find_trtexec "$asked_trtexec") || exit $?
    version=$(tensorrt_version "$trtexec")
    same_here BOARD_MODEL "$(board_model)" "this board"
    same_here TENSORRT "$version" "this machine's TensorRT"
    read_conf "$from/build.conf"
    id=$(folder_name "$(conf NAME)" | cut -c 1-60)-$(printf '%s' "$engine_hash" | cut -c 1-16)
}

# same_here KEY VALUE WHAT
same_here() {
    [ -n "$2" ] || fail 5 "$3" "cannot be told" "TensorRT and libnvinfer-bin from JetPack, on a Jetson"
    [ "$(recorded "$from" "$1")" = "$2" ] ||
        fail 3 "$from" "built for $(recorded "$from" "$1"), $3 is $2" "build_on_device.sh on this board"
}

# in_use LINK: the release that a link names; nothing where there is none.
in_use() { [ ! -L "$target/$1" ] || basename -- "$(readlink -- "$target/$1")"; }

# Copies to TARGET/releases/ID, and to ID-2 … where a damaged ID is in the way: one in use is not touched.
copy_release() {
    release=$id number=1
    while [ -e "$target/releases/$release" ]; do
        there=$target/releases/$release
        if hashes_hold "$there" && cmp -s -- "$from/record.conf" "$there/record.conf"; then
            tell "release $release is there already"
            return 0
        fi
        number=$((number + 1)) release=$id-$number
    done
    needed=$(($(du -sk -- "$from" | cut -f 1) / 1024 + 8))
    [ "$(free_mib "$target")" -ge "$needed" ] ||
        fail 5 "$target" "$needed MiB are needed, $(free_mib "$target") MiB are free" "free space"
    incoming=$(mktemp -d -- "$target/releases/.incoming.XXXXXX") ||
        fail 4 "$target/releases" "cannot be written" "access"
    cp -R -- "$from/." "$incoming/" || fail 4 "$incoming" "copying failed" "free space"
    chmod -R u=rwX,go=rX -- "$incoming"
    settle "$incoming"
    hashes_hold "$incoming" && [ "$(sha256_of "$incoming/model.engine")" = "$engine_hash" ] ||
        fail 4 "$incoming" "the copy differs from what was checked" "look at dmesg: failing disk?"
    rename_into "$incoming" "$target/releases/$release"
    incoming=''
}

# The samples, before anything is switched.
run_samples() {
    [ -n "$trtexec" ] ||
        fail 5 trtexec "is not here, and no --check was given" "apt-get install libnvinfer-bin, or --check"
    conf_file=$1/build.conf
    refuse_missing_parts "$1"
    tell "running the engine on its samples"
    scratch=$(mktemp -d -- "$(absolute "${TMPDIR:-/tmp}")/trt-opt.XXXXXX") || fail 4 "${TMPDIR:-/tmp}" "no folder can be made" "free space in /tmp"
    verify_engine "$trtexec" "$version" "$(CDPATH='' cd -- "$1" && pwd)" "$scratch"
    passed "$scratch/verdict" ||
        fail 1 "$1" "the engine's outputs are not those of the model" "build_on_device.sh again"
}

# point LINK RELEASE: in one step, by renaming a new link over the old one.
point() {
    [ "$(in_use "$1")" != "$2" ] || return 0
    rm -f -- "$target/.next.$1"
    ln -s -- "releases/$2" "$target/.next.$1" || fail 4 "$target" "no link can be made" "a file system with links"
    rename_into "$target/.next.$1" "$target/$1"
}

# `previous` first: whatever happens in between, the engine in use is one of the two that the links name.
switch_to() {
    before=$(in_use current)
    if [ "$before" = "$1" ]; then before=$(in_use previous); elif [ -n "$before" ]; then point previous "$before"; fi
    point current "$1"
}

# What the check starts must not keep the lock.
run_check() {
    TRT_OPT_ENGINE=$target/current/model.engine timeout -k 10 600 sh -c "$check" >&2 9>&- &
    await_child
    return "$status"
}

# Goes back where there is a whole engine to go back to; otherwise nothing is in use.
go_back() {
    unchecked=''
    if [ -n "$before" ] && [ "$before" != "$release" ] && hashes_hold "$target/releases/$before"; then
        point current "$before"
        tell "$before is in use again"
    else
        before=''
        rm -f -- "$target/current"
        tell "there is no engine to go back to: none is in use"
    fi
}

# The check once more, because it is what restarts whatever uses the engine.
undo_switch() {
    go_back
    again='nothing is in use'
    [ -z "$before" ] || { run_check && again="$before passes it"; } || again="it fails for $before too"
    fail 1 "$target" "the check failed for $release; $again" "the output of the check, above"
}

# Newest first; those in use stay, whatever their age.
drop_old_releases() {
    left=$((keep - 1))
    [ -z "$(in_use previous)" ] || [ "$(in_use previous)" = "$(in_use current)" ] || left=$((left - 1))
    # shellcheck disable=SC2012 # the names are folder_name's
    ls -1t -- "$target/releases" | while IFS= read -r old; do
        [ "$old" != "$(in_use current)" ] && [ "$old" != "$(in_use previous)" ] || continue
        # What is no release was put there by somebody else.
        [ -f "$target/releases/$old/record.conf" ] || continue
        left=$((left - 1))
        [ "$left" -ge 0 ] || { tell "dropping $old"; rm -rf -- "${target:?}/releases/$old"; }
    done
}

roll_back() {
    back=$(in_use previous)
    [ -n "$back" ] && [ "$back" != "$(in_use current)" ] ||
        fail 2 "$target" "there is no engine to go back to" "install_engine.sh with an older folder"
    hashes_hold "$target/releases/$back" || fail 2 "$target/releases/$back" "is damaged" "install an older folder"
    if [ "$dry_run" = yes ]; then tell "would go back to $back"; return 0; fi
    tell "going back from $(in_use current) to $back"
    point current "$back"
    [ -z "$check" ] || run_check || fail 1 "$target" "$back is in use, but the check failed" "the output above"
    printf '%s\n' "$target/current"
}

main() {
    read_arguments "$@"
    need_tools awk basename cmp cp cut df du find flock ln mktemp mv paste readlink sed sha256sum sync timeout tr
    umask 022
    end_with clean_up
    [ "$rollback" = yes ] || check_engine
    open_target
    if [ "$rollback" = yes ]; then roll_back; return 0; fi
    if [ "$dry_run" = yes ]; then
        [ -n "$check" ] || run_samples "$from"
        tell "would install $id in $target, in use now: $(in_use current)"
        return 0
    fi
    copy_release
    [ -n "$check" ] || run_samples "$target/releases/$release"
    switch_to "$release"
    if [ -n "$check" ]; then
        unchecked=yes
        run_check || undo_switch
        unchecked=''
    fi
    drop_old_releases
    printf '%s\n' "$target/current"
}

main "$@"
