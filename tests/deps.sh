#!/bin/sh
# What the demo and the tests need from Debian, found and (as root) installed.
#
#   tests/deps.sh test|demo     what `make test` and `make demo` call
#   tests/deps.sh peers         other agents that `make bench-agent` measures beside ours
#   tests/deps.sh list          what is missing, one package a line
#   tests/deps.sh before|after  hooks of one apt-get run, called by dpkg's
#                               Pre-Invoke and Post-Invoke, never by a person
#
# The demo and the tests start PostgreSQL, nginx and redis themselves, as
# their own processes on free ports. Debian's packages would do so too, system
# wide: a cluster on 5432, nginx on 80, redis on 6379, now and after each boot.
# Nobody asked for that, so for the time of the one apt-get run
#   - a policy-rc.d refuses the start of the services that come with it (one
#     that was there already is asked about everything else, and comes back);
#   - no "main" cluster is created (a drop-in, removed afterwards);
#   - the units that came with it are disabled afterwards.
# The policy is bound to the pid of apt-get: if that is killed half way, what
# is left of the policy refuses nothing, and the next run clears it away. A
# service that was installed before is never touched.
set -eu

state=/run/webhost-deps
policy=/usr/sbin/policy-rc.d
saved=$policy.webhost-saved
marker='written by webhost tests/deps.sh'
dropin_dir=/etc/postgresql-common/createcluster.d
dropin=$dropin_dir/webhost-no-main-cluster.conf
services='nginx redis-server postgresql docker containerd collectd prometheus-node-exporter'
units='nginx.service redis-server.service postgresql.service docker.service docker.socket containerd.service collectd.service prometheus-node-exporter.service'

self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")

say() { printf '%s\n' "$*" >&2; }

# Words for a shell, whatever characters are in them.
quote() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

# --- what is there --------------------------------------------------------

# The version whose binaries the tests would take: the highest one installed.
postgres_version() {
    for initdb in /usr/lib/postgresql/*/bin/initdb; do
        [ -x "$initdb" ] || continue
        version=${initdb#/usr/lib/postgresql/}
        printf '%s\n' "${version%%/*}"
    done | sort -n | tail -n 1
}

candidate() { apt-cache policy "$1" 2>/dev/null | grep -q '^  Candidate: [0-9]'; }

# 15 is what we run on; a Debian that has no 15 any more gives its own.
postgres_to_install() {
    if candidate postgresql-15 || ! candidate postgresql; then
        echo 15
    else
        apt-cache depends postgresql 2>/dev/null |
            sed -n 's/^ *|*Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | head -n 1
    fi
}

installed() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/usr/bin/$1" ]; }

# An engine of our own needs root, namespaces and writable cgroups; inside most
# containers there are none of these, and then there is nothing to install for.
engine_could_start() {
    [ "$(id -u)" = 0 ] && [ -z "${WEBHOST_NO_DOCKER:-}" ] || return 1
    unshare --mount --pid --fork true 2>/dev/null || return 1
    if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
        [ -w /sys/fs/cgroup/cgroup.subtree_control ]
    else
        [ -w /sys/fs/cgroup/memory/tasks ]
    fi
}

# One line for each missing package: its name, a tab, what it is for.
missing() {
    if [ "$1" = peers ]; then
        installed collectd || printf 'collectd-core\ta peer of the agent, for its benchmark\n'
        installed prometheus-node-exporter ||
            printf 'prometheus-node-exporter\tanother one\n'
        return
    fi
    installed cc ||
        printf 'gcc\tthe linker of every Rust program\nlibc6-dev\tits C library\n'
    if [ -n "${WEBHOST_PG_BIN:-}" ]; then
        :
    elif version=$(postgres_version) && [ -n "$version" ]; then
        [ -f "/usr/share/postgresql/$version/extension/postgis.control" ] ||
            printf 'postgresql-%s-postgis-3\tthe geometry columns of the tenants'"'"' tables\n' "$version"
    else
        version=$(postgres_to_install)
        printf 'postgresql-%s\tthe state of the coordinator, and the tenants'"'"' databases\n' "$version"
        printf 'postgresql-%s-postgis-3\tthe geometry columns of the tenants'"'"' tables\n' "$version"
    fi
    installed nginx || printf 'nginx\tthe front of a shared node\n'
    installed redis-server || printf 'redis-server\tthe cache of a node\n'
    if [ "$1" = demo ] && ! installed dockerd && engine_could_start; then
        printf 'docker.io\tcontainers of single tenants in the demo (WEBHOST_NO_DOCKER=1 does without)\n'
    fi
}

# --- hooks of one apt-get run ---------------------------------------------

# The apt-get above us; 1 when we were called by something else.
apt_pid() {
    pid=$$ found=1
    while [ "${pid:-0}" -gt 1 ]; do
        case $(cat "/proc/$pid/comm" 2>/dev/null) in apt | apt-get) found=$pid ;; esac
        pid=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$pid/status" 2>/dev/null)
    done
    echo "$found"
}

restore() {
    if [ -f "$policy" ] && grep -q "$marker" "$policy"; then rm -f "$policy"; fi
    if [ -e "$saved" ] || [ -L "$saved" ]; then mv "$saved" "$policy"; fi
    rm -f "$dropin"
    if [ -f "$state/made-dropin-dir" ]; then rmdir "$dropin_dir" 2>/dev/null || :; fi
}

unit_known() {
    for dir in /etc/systemd/system /usr/lib/systemd/system /lib/systemd/system; do
        if [ -e "$dir/$1" ]; then return 0; fi
    done
    [ -e "/etc/init.d/${1%.*}" ]
}

before() {
    umask 022
    # dpkg is called more than once in some runs, and an earlier run may have
    # been killed: the list of what was there first is made only once.
    restore
    mkdir -p "$state"
    if [ ! -f "$state/new-units" ]; then
        for unit in $units; do
            if ! unit_known "$unit"; then echo "$unit"; fi
        done >"$state/new-units.part"
        mv "$state/new-units.part" "$state/new-units"
    fi
    refused=
    for service in $services; do
        if grep -q "^$service\\." "$state/new-units"; then refused="$refused|$service"; fi
    done
    if [ -e "$policy" ] || [ -L "$policy" ]; then mv "$policy" "$saved"; fi
    cat >"$policy.webhost-part" <<POLICY
#!/bin/sh
# $marker for the time of one apt-get run; removed after it.
for word; do case \$word in --*) ;; *) service=\${word%.service}; break ;; esac; done
service=\${service%.socket}
if [ -d /proc/$(apt_pid) ]; then
    case \$service in ${refused#|}${refused:+|}webhost-none) exit 101 ;; esac
fi
if [ -x $saved ]; then exec $saved "\$@"; fi
exit 0
POLICY
    chmod 755 "$policy.webhost-part"
    mv "$policy.webhost-part" "$policy"
    if [ -z "$(postgres_version)" ]; then
        if [ ! -d "$dropin_dir" ]; then
            mkdir -p "$dropin_dir"
            touch "$state/made-dropin-dir"
        fi
        printf '# %s; removed after the installation\ncreate_main_cluster = false\n' "$marker" >"$dropin"
    fi
}

disable() {
    if command -v systemctl >/dev/null 2>&1; then
        systemctl --quiet disable "$1" 2>/dev/null || :
    elif command -v deb-systemd-helper >/dev/null 2>&1; then
        deb-systemd-helper disable "$1" >/dev/null 2>&1 || :
    fi
    if [ -e "/etc/init.d/${1%.*}" ] && command -v update-rc.d >/dev/null 2>&1; then
        update-rc.d "${1%.*}" disable >/dev/null 2>&1 || :
    fi
}

after() {
    restore
    if [ -f "$state/new-units" ]; then
        while read -r unit; do
            if unit_known "$unit"; then disable "$unit"; fi
        done <"$state/new-units"
    fi
    rm -rf "$state"
}

# --- check and install ----------------------------------------------------

lists_are_old() {
    [ -z "$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' 2>/dev/null | head -n 1)" ] ||
        [ -n "$(find /var/lib/apt/lists -maxdepth 0 -mtime +7 2>/dev/null)" ]
}

hook() { printf 'DPkg::%s-Invoke::=/bin/sh %s %s' "$1" "$(quote "$self")" "$2"; }

install() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
        -o "$(hook Pre before)" -o "$(hook Post after)" install "$@"
}

# An apt-get of ours was killed half way and its hook never ran.
leftover() {
    [ -d "$state" ] || grep -q -s "$marker" "$policy" || return 1
    pid=$(sed -n 's|.*/proc/\([0-9][0-9]*\) .*|\1|p' "$policy" 2>/dev/null | head -n 1)
    [ -z "$pid" ] || [ ! -d "/proc/$pid" ]
}

check() {
    if [ "$(id -u)" = 0 ] && leftover; then after; fi
    list=$(missing "$1")
    if [ -z "$list" ]; then exit 0; fi
    if ! command -v apt-get >/dev/null 2>&1; then
        say "these are missing, and there is no apt-get to install them with:"
        printf '%s\n' "$list" | sed 's/^/  /' >&2
        exit 1
    fi
    if [ "$(id -u)" = 0 ] && lists_are_old; then
        say "the package lists are missing or old: apt-get update"
        apt-get -q update >&2
        list=$(missing "$1")
    fi
    packages=$(printf '%s\n' "$list" | cut -f 1)
    say "missing from this machine:"
    printf '%s\n' "$list" | awk -F '\t' '{ printf "  %-28s %s\n", $1, $2 }' >&2
    say "None of their services is started or enabled: the tests and the demo run their own."
    if [ "$(id -u)" != 0 ]; then
        update=
        if lists_are_old; then update='sudo apt-get update && '; fi
        say "Install them with this line, then try again:"
        say ""
        # The hooks stand in the line so that it is as careful as root's.
        say "  ${update}sudo apt-get --no-install-recommends -o $(quote "$(hook Pre before)") -o $(quote "$(hook Post after)") install $(printf '%s\n' "$packages" | paste -s -d ' ')"
        say ""
        exit 1
    fi
    say "installing them now with apt-get."
    trap after EXIT
    # shellcheck disable=SC2086 # one word for each package
    if ! install $packages >&2; then
        say "that failed; once more with fresh package lists"
        apt-get -q update >&2
        # shellcheck disable=SC2086
        install $packages >&2
    fi
    list=$(missing "$1")
    if [ -n "$list" ]; then
        say "still missing after the installation:"
        printf '%s\n' "$list" | sed 's/^/  /' >&2
        exit 1
    fi
}

case ${1:-} in
test | demo | peers) check "$1" ;;
list) missing "${2:-demo}" | cut -f 1 ;;
before) before ;;
after) after ;;
*)
    say "usage: tests/deps.sh test|demo|peers|list"
    exit 2
    ;;
esac
