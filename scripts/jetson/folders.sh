# shellcheck shell=sh
# Folders that appear whole or not at all: made beside their place, synced, renamed. One run at a time per folder.

# lock_folder FOLDER: held by file descriptor 9, so it ends with the last process of this run, however that ends.
lock_folder() {
    [ -d "$1" ] && [ -w "$1" ] || fail 2 "$1" "is no folder that can be written to as $(id -un)" "another folder, or chown it"
    { : >>"$1/.lock"; } 2>/dev/null || fail 2 "$1/.lock" "cannot be written" "remove it, or take another folder"
    exec 9>>"$1/.lock"
    flock -n 9 || fail 4 "$1" "another run is at work here" "wait for it to end; its processes: fuser '$1/.lock'"
}

# settle FOLDER: on the disk before the name that makes it count.
settle() {
    find "$1" -depth -exec sync -- {} + || fail 4 "$1" "cannot be written out" "look at dmesg: the disk may be failing"
}

# rename_into FROM TO: FROM takes the place of the link TO, or a place that is free.
rename_into() {
    mv -T -- "$1" "$2" || fail 4 "$2" "cannot be put in place" "free space and write access there"
    sync -- "$(dirname -- "$2")"
}

# list_hashes FOLDER: writes FOLDER/SHA256SUMS over every other file in it.
list_hashes() (
    cd -- "$1" && find . -type f ! -path ./SHA256SUMS -exec sha256sum {} + | sed 's|  \./|  |' >SHA256SUMS
)

# hashes_hold FOLDER: every file as SHA256SUMS says, none missing, none besides, nothing but files and folders.
hashes_hold() (
    cd -- "$1" 2>/dev/null && [ -f SHA256SUMS ] && [ -z "$(find . ! -type f ! -type d)" ] || exit 1
    listed=$(cut -c 67- SHA256SUMS | LC_ALL=C sort)
    found=$(find . -type f ! -path ./SHA256SUMS | sed 's|^\./||' | LC_ALL=C sort)
    [ -n "$listed" ] && [ "$listed" = "$found" ] && sha256sum -c --strict --quiet SHA256SUMS >/dev/null 2>&1
)

# recorded FOLDER KEY: what FOLDER/record.conf says of KEY.
recorded() { sed -n "s/^$2=//p" "$1/record.conf" | head -n 1; }
