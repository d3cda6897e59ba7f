#!/usr/bin/env bash
# Installs lxpy, sets it up and launches a first container. Running it again upgrades; containers keep running.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C.UTF-8

usage() {
    cat <<'TEXT'
sudo ./install.sh                  install or upgrade lxpy, set it up, launch a first container
  --no-launch                      without the first container
  --image IMAGE                    the first container's image (default: images:alpine if its server answers,
                                   else builtin:busybox)
sudo ./install.sh --uninstall      take lxpy away; asks whether containers and images go too
  --yes                            ask nothing; keeps the data unless --purge
  --keep-data, --purge             keep, or delete, containers, images and settings in /var/lib/lxpy

LXPY_PREFIX (default /opt/lxpy) is where the program goes, LXPY_BIN (/usr/local/bin) where its commands go,
LXPY_DIR (/var/lib/lxpy) where containers and images live.
TEXT
}

fail() { echo "Error: $*" >&2; exit 1; }
again=./install.sh
trap 'echo "Interrupted: run $again again, it takes up where this ended" >&2; exit 130' INT
trap '[ ${#scratch[@]} -eq 0 ] || rm -rf "${scratch[@]}"' EXIT
step() { echo "==> $*"; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
prefix=${LXPY_PREFIX:-/opt/lxpy}
bin=${LXPY_BIN:-/usr/local/bin}
data=${LXPY_DIR:-/var/lib/lxpy}
lxpy=$bin/lxpy
installed_packages=()
# shellcheck source=packaging/host.sh
. "$here/packaging/host.sh"

main() {
    local action=install launch=yes image='' yes='' keep=''
    while [ $# -gt 0 ]; do
        case $1 in
            --no-launch) launch='' ;;
            --image) [ $# -gt 1 ] || fail "--image needs an image, such as builtin:busybox"; image=$2; shift ;;
            --uninstall) action=uninstall ;;
            --yes | -y) yes=yes ;;
            --keep-data) keep=keep ;;
            --purge) keep=purge ;;
            -h | --help) usage; return ;;
            *) fail "unknown option $1 (see ./install.sh --help)" ;;
        esac
        shift
    done
    [ "$(id -u)" = 0 ] || fail "installing needs root: sudo ./install.sh"
    case "$prefix$bin" in *[[:space:]]*) fail "LXPY_PREFIX and LXPY_BIN must not contain spaces" ;; esac
    case $action in
        install) install_lxpy; set_up; [ -z "$launch" ] || first_container "$image"; farewell ;;
        uninstall) uninstall "$yes" "$keep" ;;
    esac
}

has_systemd() { [ -d /run/systemd/system ]; }
# Units serve the default directory only: a second lxpy with its own LXPY_DIR is started by its first command.
uses_systemd() { has_systemd && [ "$data" = /var/lib/lxpy ]; }

# ---------------------------------------------------------------------------------------------------- install

install_lxpy() {
    local python
    python=$(find_python) || fail "Python 3.11 or newer is needed: Debian 12, Ubuntu 24.04 and later have it (apt install python3)"
    room_for_it
    step "Looking for system packages"
    install_packages
    make_venv "$python" "$prefix"

    local digest
    digest=$({ "$python" -c 'import sys; print(sys.version)'; source_digest; } | sha256sum)
    if [ "$(cat "$prefix/.installed" 2>/dev/null)" = "$digest" ]; then
        step "lxpy is up to date in $prefix"
    else
        step "Installing lxpy into $prefix"
        install_package
        printf '%s\n' "$digest" >"$prefix/.installed"
    fi
    if [ ${#installed_packages[@]} -gt 0 ]; then printf '%s\n' "${installed_packages[@]}" >>"$prefix/.packages"; fi
    mkdir -p "$bin"
    write_launcher lxpy lxpy.cli.main
    write_launcher lxpyd lxpy.daemon.main
    getent group lxpy >/dev/null || groupadd --system lxpy || fail "could not create the group lxpy"
    restart_daemon
}

# The program takes 120 MB, pip's unpacking as much again, packages of the distribution 150, a small image the rest.
room_for_it() {
    local place=$prefix free
    while [ ! -d "$place" ]; do place=$(dirname "$place"); done
    free=$(($(df --output=avail -k "$place" | tail -n 1) / 1024))
    [ -e "$prefix/.installed" ] || [ "$free" -ge 500 ] ||
        fail "not enough disk space: $free MiB are free in $place, 500 are needed; nothing was changed"
}

source_digest() {
    (cd "$here" && find lxpy images packaging pyproject.toml -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum)
}

# A wheel, built from a copy: nothing is written into the checkout, and nothing is imported from it later.
install_package() {
    local copy log
    copy=$(mktemp -d 2>/dev/null) || fail "there is no space left in ${TMPDIR:-/tmp}; make room, then run this again"
    scratch+=("$copy")
    log=$copy/pip.log
    (cd "$here" && cp -r lxpy images packaging pyproject.toml README.md LICENSE "$copy/")
    find "$copy" -name __pycache__ -prune -exec rm -rf {} +
    if ! "$prefix/bin/python" -m pip install --no-input --quiet --disable-pip-version-check --upgrade \
        --no-warn-script-location --force-reinstall --no-deps "$copy" >"$log" 2>&1 ||
        ! "$prefix/bin/python" -m pip install --no-input --quiet --disable-pip-version-check \
            --no-warn-script-location "$copy" >>"$log" 2>&1; then
        tail -n 15 "$log" >&2
        fail "pip could not install lxpy into $prefix: $(likely_cause "$log")"
    fi
    "$prefix/bin/python" -m compileall -q -j 0 "$(site_packages)" >/dev/null 2>&1 || true
}

site_packages() { "$prefix/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

# Isolated and without `site`: 6 ms of start-up in place of 14. It says itself what `site` would: the one directory
# and the prefix. Ctrl-C while it imports ends it in silence; `main` takes it from there.
write_launcher() {
    local file=$bin/$1
    cat >"$file.new" <<TEXT
#!$prefix/bin/python -IS
import _signal, sys
if _signal.getsignal(2) is _signal.default_int_handler:
    _signal.signal(2, _signal.SIG_DFL)
sys.path.append("$(site_packages)")
sys.prefix = "$prefix"
from $2 import main
sys.exit(main())
TEXT
    chmod 755 "$file.new"
    mv "$file.new" "$file"
}

daemon_answers() { LXPY_DIR=$data timeout 30 "$lxpy" query /1.0 >/dev/null 2>&1; }
daemon_pid() {
    local pid
    pid=$(cat "$data/lxpyd.pid" 2>/dev/null) || return 1
    [ -n "$pid" ] && grep -qa lxpy "/proc/$pid/cmdline" 2>/dev/null && echo "$pid"
}

# Containers do not depend on the daemon: an upgrade replaces it under them.
restart_daemon() {
    local unit
    if uses_systemd; then
        for unit in "$here"/packaging/lxpy*.service "$here"/packaging/lxpy*.socket; do
            [ -e "$unit" ] || continue
            sed "s|/usr/local/bin/|$bin/|g" "$unit" >"/etc/systemd/system/${unit##*/}"
        done
        systemctl daemon-reload
        systemctl -q enable --now lxpy.socket
        systemctl -q enable lxpy.service
        systemctl restart lxpy.service
        if [ -e /etc/systemd/system/lxpy-stop.service ]; then systemctl -q enable --now lxpy-stop.service; fi
    else
        stop_daemon
    fi
    daemon_answers || fail "lxpyd does not answer: $(failure_hint)"
}

# What lxpyd itself gave as the reason, and where there is more.
failure_hint() {
    tail -n 1 "$data/lxpyd.log" 2>/dev/null | sed -n 's/^[-0-9]* [0-9:,]* ERROR \(.*\)$/\1; /p' | tr -d '\n'
    if uses_systemd; then echo "see journalctl -u lxpy"; else echo "see $data/lxpyd.log"; fi
}

stop_daemon() {
    local pid
    pid=$(daemon_pid) || return 0
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    fail "lxpyd (process $pid) does not end"
}

set_up() {
    export LXPY_DIR=$data
    if [ -z "$("$lxpy" storage list -f csv)" ]; then
        step "Setting up a storage pool, a bridge and the default profile"
        "$lxpy" init --auto
    fi
}

first_container() {
    local image=$1
    if [ -n "$("$lxpy" list -f csv -c n)" ]; then
        step "There are containers already: none is launched"
        return
    fi
    if [ -z "$image" ]; then
        image=images:alpine
        if ! timeout 8 "$lxpy" image info "$image" >/dev/null 2>&1 </dev/null; then
            echo "The image server does not answer: the first container comes from the built-in busybox image"
            image=builtin:busybox
        fi
    fi
    step "Launching $image as \`first\`"
    "$lxpy" launch "$image" first </dev/null
    for _ in $(seq 100); do
        [ -z "$("$lxpy" list -f csv -c 4 first)" ] || return 0
        sleep 0.2
    done
    echo "Warning: first has no IPv4 address after 20 s; lxpy list shows it when it comes" >&2
}

farewell() {
    step "Ready"
    "$lxpy" list
    cat <<TEXT

A shell in one:   lxpy shell first         The full-screen app:  lxpy
Another one:      lxpy launch builtin:debian/12 d1
For users other than root: add them to the group lxpy (which is as good as root): usermod -aG lxpy NAME
TEXT
}

# -------------------------------------------------------------------------------------------------- uninstall

uninstall() {
    local yes=$1 keep=$2
    if [ ! -e "$prefix" ] && [ ! -e "$lxpy" ] && [ ! -e "$data" ]; then echo "lxpy is not installed."; return; fi
    export LXPY_DIR=$data
    if [ -z "$keep" ]; then
        keep=keep
        if [ -z "$yes" ]; then
            [ -t 0 ] || fail "nobody to ask: say --yes with --keep-data or --purge"
            local answer
            if [ -d "$data" ]; then
                if [ -x "$lxpy" ]; then "$lxpy" list || true; fi
                read -r -p "Delete all containers, images and settings in $data? (yes/no) [default=no]: " answer
                [ "$answer" != yes ] || keep=purge
            fi
            read -r -p "Uninstall lxpy now? (yes/no) [default=no]: " answer
            [ "$answer" = yes ] || { echo "Nothing was changed."; return; }
        fi
    elif [ -z "$yes" ] && [ -t 0 ]; then
        local answer
        read -r -p "Uninstall lxpy now ($([ $keep = purge ] && echo "with all data" || echo "data stays")) (yes/no) [default=no]: " answer
        [ "$answer" = yes ] || { echo "Nothing was changed."; return; }
    fi

    again='./install.sh --uninstall'
    if [ -x "$lxpy" ] && [ -x "$prefix/bin/python" ]; then
        step "Stopping containers and taking networks away"
        "$prefix/bin/python" -I "$here/packaging/teardown.py" "$keep" || fail "lxpy is still installed: see the line above, then run this again"
    fi
    if uses_systemd; then
        local unit
        # The stop unit's work is done; it must not run again without the program.
        for unit in lxpy-stop.service lxpy.socket lxpy.service; do
            [ ! -e "/etc/systemd/system/$unit" ] || systemctl -q disable --now "$unit" 2>/dev/null || true
            rm -f "/etc/systemd/system/$unit"
        done
        systemctl daemon-reload
    fi
    stop_daemon
    if [ -s "$prefix/.packages" ]; then
        echo "These system packages were installed for lxpy and stay: $(sort -u "$prefix/.packages" | tr '\n' ' ')"
    fi
    rm -rf "$prefix" "$lxpy" "$bin/lxpyd"
    if getent group lxpy >/dev/null && [ "$data" = /var/lib/lxpy ]; then groupdel lxpy || true; fi
    if [ "$keep" = purge ]; then
        if grep -q " $data/" /proc/self/mounts; then fail "something is still mounted below $data: unmount it, then remove $data"; fi
        rm -rf "$data"
        step "lxpy is gone, with its data"
    else
        step "lxpy is gone; its data stays in $data"
    fi
}

main "$@"
