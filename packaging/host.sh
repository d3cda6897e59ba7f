# What install.sh and tests/run need of a host: an interpreter, system packages, a virtual environment. Sourced, not run.
# shellcheck shell=bash

# The interpreter: the distribution's own first (its updates reach us), else the newest one in PATH.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
            # pyenv and the like put scripts into PATH; the real file is wanted.
            "$candidate" -c 'import sys; print(sys.executable)'
            return 0
        fi
    done
    return 1
}

# Is this busybox one that runs in a container with no libraries at all?
static_busybox() {
    command -v busybox >/dev/null && ! LC_ALL=C ldd "$(command -v busybox)" 2>/dev/null | grep -q '=>'
}

# A command, the package that has it, and why it is needed. Tests of their own go by name.
needed_packages() {
    cat <<'LIST'
dnsmasq         dnsmasq-base            gives containers their addresses and names
nft             nftables                lets containers reach the network through this host
mksquashfs      squashfs-tools          packs and unpacks images
static_busybox  busybox-static          is the smallest built-in image, 1 MB
mmdebstrap      mmdebstrap              builds the Debian images of builtin:
xz              xz-utils                unpacks images
zstd            zstd                    unpacks images
losetup         mount                   mounts images
mkfs.btrfs      btrfs-progs             makes the file systems of btrfs pools
lxcfs           lxcfs                   shows containers their own memory and CPUs
xdelta3         xdelta3                 downloads only what has changed of an image
ensurepip       python3-venv            gives lxpy a Python environment of its own
LIST
    [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" != Y ] || [ "${1:-}" = tests ] || cat <<'LIST'
apparmor_parser apparmor                compiles the profiles that confine containers
LIST
    [ "${1:-}" != tests ] || cat <<'LIST'
apparmor_parser apparmor                compiles the profiles of containers, to see that they are right
lxc             lxd-client              is the stock client that the tests run against lxpy
sftp            openssh-client          is the stock client of the files of containers
sshfs           sshfs                   mounts them
tmux            tmux                    is the terminal that the tests open the app in
unshare         util-linux              gives the tests namespaces of their own
iptables-legacy iptables                is another firewall, that doctor has to see
ip              iproute2                looks at links and addresses
busctl          systemd                 talks to firewalld, which the tests unpack and run in namespaces of their own
dbus-daemon     dbus                    is the bus it is talked to over
/usr/lib/polkit-1/polkitd polkitd       says who may talk to it
/usr/lib/python3/dist-packages/dbus python3-dbus is what firewalld is written with
/usr/lib/python3/dist-packages/gi python3-gi is what firewalld is written with
gcc             gcc                     compiles the programs that attack a container from inside
/usr/include/stdio.h libc6-dev       is what they are compiled with
LIST
}

# likely_cause LOG: why apt or pip failed, for the end of a sentence; their own words have been shown.
likely_cause() {
    if grep -qi 'no space left' "$1"; then
        echo "there is no space left on the disk; make room, then run this again"
    elif grep -qiE 'temporary failure|could not resolve|connection (refused|timed out)|unreachable|cannot initiate' "$1"; then
        echo "the package servers cannot be reached; check the network, then run this again"
    elif grep -q 'dpkg was interrupted' "$1"; then
        echo "an earlier installation was interrupted; type: dpkg --configure -a, then run this again"
    else
        echo "its last words are above"
    fi
}

# Files and folders that go whatever happens: the script that sources this removes them at its end.
scratch=()

# Installs what is missing, each with its reason. `install_packages tests` adds what only the tests want.
install_packages() {
    local check package why missing=()
    while read -r check package why; do
        case $check in
            static_busybox) static_busybox && continue ;;
            ensurepip) "$python" -c 'import ensurepip, venv' 2>/dev/null && continue ;;
            lxc) { command -v lxc >/dev/null || [ -z "$(apt-cache show "$package" 2>/dev/null)" ]; } && continue ;;
            /*) [ -e "$check" ] && continue ;;
            *) PATH=$PATH:/usr/sbin:/sbin command -v "$check" >/dev/null && continue ;;
        esac
        missing+=("$package")
        printf '  %-16s %s\n' "$package" "$why"
    done < <(needed_packages "${1:-}")
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || fail "these packages are missing and there is no apt-get here: ${missing[*]}"
    echo "Installing ${missing[*]} with apt"
    local log apt=(apt-get -q -y -o DPkg::Lock::Timeout=300)
    log=$(mktemp 2>/dev/null) || fail "there is no space left in ${TMPDIR:-/tmp}; make room, then run this again"
    scratch+=("$log")
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l
    # The package lists of a fresh machine may be empty or old; one refresh cures both.
    if ! "${apt[@]}" install --no-install-recommends "${missing[@]}" >"$log" 2>&1 </dev/null; then
        # In a subshell: what Ctrl-C makes the script say must not go into the log.
        if ! ("${apt[@]}" update && "${apt[@]}" install --no-install-recommends "${missing[@]}") >"$log" 2>&1 </dev/null; then
            tail -n 15 "$log" >&2
            fail "apt could not install ${missing[*]}: $(likely_cause "$log")"
        fi
    fi
    rm -f "$log"
    installed_packages=("${missing[@]}")
}

# make_venv PYTHON FOLDER: a virtual environment with pip, made anew where FOLDER's has another interpreter.
make_venv() {
    if [ -x "$2/bin/python" ] && "$2/bin/python" -m pip --version >/dev/null 2>&1 &&
        [ "$("$2/bin/python" -c 'import sys; print(sys.version)')" = "$("$1" -c 'import sys; print(sys.version)')" ]; then
        return 0
    fi
    "$1" -m venv --clear "$2" || fail "$1 could not make a virtual environment in $2"
}
