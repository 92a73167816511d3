#!/bin/sh
# Two machines with a systemd each, installed by the README's own commands.
#
#   tests/live.sh        what `make live` calls, as root
#
# Each machine is a set of namespaces whose file system is this one's with a
# layer in memory above it, so that nothing here is changed; a pair of virtual
# Ethernet devices joins them, and nothing else. The commands under "Install for
# real" in README.md are run there as they stand: the coordinator and the first
# node on node-1, another node on node-2, PostgreSQL by peer authentication. A
# tenant whose application knows nothing of moves then moves from one to the
# other while it is written to, and back; agents are killed and frozen. Every
# write that was acknowledged must be found where the tenant lives.
set -eu
cd "$(dirname "$0")/.."

project=$(pwd)
tenant=11111111-1111-4111-8111-111111111111
vehicle=22222222-2222-4222-8222-222222222222
host=nordwind.tracking.example.net
program_dir=${PROGRAMS:-target/release}
clock=$(date +%s)

say() { printf '%4d s  %s\n' $(($(date +%s) - clock)) "$*"; }
die() { say "FAILED: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die 'it makes namespaces and needs root'
[ -x /lib/systemd/systemd ] || die 'there is no systemd here: apt-get install systemd'
[ -d /usr/share/postgresql-common ] || die "PostgreSQL is not Debian's: the machines can't start it"

work=$(mktemp -d "${TMPDIR:-/tmp}/webhost-live-XXXXXX")

# --- machines ---------------------------------------------------------------

groups=/sys/fs/cgroup
[ -d $groups/unified ] && groups=$groups/unified

# What becomes the machine's first process.
cat >"$work/boot" <<'BOOT'
set -eu
name=$1 work=$2 project=$3 root=$2/$1/root
mount --make-rprivate /
mount -t tmpfs -o size=64g tmpfs "$work/$name"
mkdir -p "$work/$name/up" "$work/$name/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/$name/up,workdir=$work/$name/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
for dir in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$dir"; done
chmod 1777 "$root/tmp"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s pts/ptmx "$root/dev/ptmx"
mkdir "$root/dev/shm" "$root/dev/pts" "$root/mnt/live" "$root/mnt/project"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount --bind "$work/shared" "$root/mnt/live"
mount --bind "$project" "$root/mnt/project"
# Of what this machine has, only what the two need is started there.
for unit in docker containerd redis-server docker.socket; do
    case $unit in *.*) ;; *) unit=$unit.service ;; esac
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
cd "$root"
mkdir -p before
pivot_root . before
umount -l /before
hostname "$name"
ip link set lo up
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd \
    --log-target=journal-or-kmsg --show-status=false --unit=multi-user.target
BOOT

outers=
boot() {
    mkdir -p "$work/$1" "$groups/webhost-live-$1"
    (
        exec >"$work/$1.log" 2>&1 </dev/null
        sh -c 'echo $$ >"$1/cgroup.procs"; exec unshare --kill-child -m -p -f -u -i -n -C sh "$2/boot" "$3" "$2" "$4"' \
            boot "$groups/webhost-live-$1" "$work" "$1" "$project"
    ) &
    outer=$!
    outers="$outers $outer"
    for _ in $(seq 300); do
        pid=$(cat "/proc/$outer/task/$outer/children" 2>/dev/null | tr -d ' ') || :
        [ -z "$pid" ] || echo "$pid" >"$work/$1.pid"
        if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = systemd ] && inside "$1" systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'; then
            return 0
        fi
        kill -0 "$outer" 2>/dev/null || break
        sleep 0.2
    done
    cat "$work/$1.log"
    die "$1 has not booted"
}

# Runs a command on a machine.
inside() {
    machine=$(cat "$work/$1.pid")
    shift
    nsenter -t "$machine" -m -p -u -i -n -C env -i HOME=/root \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

end() {
    code=$?
    trap - EXIT HUP INT TERM
    [ "$code" = 0 ] || for name in node-1 node-2; do
        inside "$name" journalctl --no-pager -o cat -n 40 -u 'webhost-*' 2>/dev/null | sed "s/^/$name: /" || :
    done
    for name in node-1 node-2; do
        # The first process of a namespace takes all others with it.
        [ ! -s "$work/$name.pid" ] || kill -KILL "$(cat "$work/$name.pid")" 2>/dev/null || :
    done
    for pid in $outers; do kill -KILL "$pid" 2>/dev/null || :; done
    wait
    # The last processes may take a moment to be gone.
    for name in node-1 node-2; do
        for _ in $(seq 50); do
            [ -d "$groups/webhost-live-$name" ] || break
            find "$groups/webhost-live-$name" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.2
        done
    done
    rm -rf "$work"
    exit "$code"
}
trap end EXIT
trap 'exit 1' HUP INT TERM

# --- the README's commands ----------------------------------------------------

# The lines of the shell block in "Install for real" that has the line $1.
block() {
    awk -v wanted="$1" '
        /^## / { here = ($0 == "## Install for real") }
        here && /^```sh$/ { text = ""; inside = 1; next }
        inside && /^```$/ { inside = 0; if (index(text, wanted)) { printf "%s", text; found = 1 } next }
        inside { text = text $0 "\n" }
        END { exit !found }' README.md || die "README.md has no block with: $1"
}

mkdir "$work/shared"
{ echo 'set -eux'; echo 'cd /mnt/project'; block 'make install' | grep '^sudo '; } >"$work/shared/install"
{ echo 'set -eux'; block 'createuser'; } >"$work/shared/coordinator"
block 'node-tokens' | awk '/^# on the node/ { exit } { print }' >"$work/shared/join"
{ echo 'set -eux'; block 'node-tokens' | awk '/^# on the node/ { here = 1 } here'; } >"$work/shared/node"

# Where there is no sudo, root does without.
cat >"$work/shared/sudo" <<'SUDO'
#!/bin/sh
if [ "$1" = -u ]; then user=$2; shift 2; exec runuser -u "$user" -- "$@"; fi
exec "$@"
SUDO

# What stands on a server before the agent comes: a database, and an application.
cat >"$work/shared/before" <<BEFORE
set -eu
command -v sudo >/dev/null || install -m 755 /mnt/live/sudo /usr/local/bin/sudo
useradd -r -s /usr/sbin/nologin webhost_app
version=\$(ls /usr/lib/postgresql | sort -n | tail -n 1)
[ -e /etc/postgresql/\$version/main ] || pg_createcluster \$version main
systemctl start postgresql@\$version-main
sudo -u postgres createuser webhost_app
sudo -u postgres createdb webhost
echo 'create extension postgis; grant create, usage on schema public to webhost_app;
    grant create, connect on database webhost to webhost_app;' | sudo -u postgres psql -q webhost
{ echo 'set role webhost_app;'; cat /mnt/project/tests/sql/webhost.sql; } | sudo -u postgres psql -q webhost
install -m 755 /mnt/project/$program_dir/webhost-app /usr/local/bin/
cat >/etc/systemd/system/webhost.service <<UNIT
[Service]
User=webhost_app
RuntimeDirectory=webhost
ExecStart=/usr/local/bin/webhost-app --bare --listen 127.0.0.1:4000 --postgres /run/postgresql --pid-file /run/webhost/pid
UNIT
systemctl daemon-reload
systemctl start webhost
BEFORE

# --- the fleet ------------------------------------------------------------------

say 'two machines boot'
boot node-1
boot node-2
one=$(cat "$work/node-1.pid") two=$(cat "$work/node-2.pid")
nsenter -t "$one" -n ip link add eth0 type veth peer name eth0 netns "/proc/$two/ns/net"
nsenter -t "$one" -n ip addr add 10.77.0.1/24 dev eth0
nsenter -t "$two" -n ip addr add 10.77.0.2/24 dev eth0
for pid in $one $two; do nsenter -t "$pid" -n ip link set eth0 up; done

install_node() {
    name=$1 address=$2
    inside "$name" sed -i \
        -e "s/coordinator.example.net:7401/10.77.0.1:7401/" -e "s/node-1.example.net:7403/$address:7403/" \
        -e 's/^#cpu_millicores = .*/cpu_millicores = 64000/' /etc/webhost/agent.toml.example
    inside node-1 env TOKEN="$token" sh -eu -c "$(sed "s/\"node-1\"/\"$name\"/" "$work/shared/join")" |
        sed 's/.*"token":"\([^"]*\)".*/\1/' >"$work/shared/token"
    inside "$name" sh -c 'sh /mnt/live/node </mnt/live/token' >>"$work/$name.log" 2>&1 ||
        { cat "$work/$name.log"; die "$name is not installed"; }
    rm "$work/shared/token"
    inside "$name" systemctl -q enable --now webhost-nginx-reload.path
    inside "$name" sh -c 'cp /usr/local/share/doc/webhost/nginx.conf /etc/nginx/nginx.conf && systemctl restart nginx'
}

for name in node-1 node-2; do
    say "$name: a database and an application, then make install"
    inside "$name" sh /mnt/live/before >>"$work/$name.log" 2>&1 || { cat "$work/$name.log"; die "$name is no server"; }
    inside "$name" sh /mnt/live/install >>"$work/$name.log" 2>&1 || { cat "$work/$name.log"; die 'make install'; }
done
say 'the coordinator, as the README says'
inside node-1 sed -i 's/^#domain = .*/domain = "tracking.example.net"/' /etc/webhost/coordinator.toml.example
inside node-1 sh /mnt/live/coordinator >"$work/coordinator.log" 2>&1 || { cat "$work/coordinator.log"; die 'the coordinator'; }
token=$(grep '^whf_' "$work/coordinator.log" | tail -n 1)
[ -n "$token" ] || die 'no token was printed'
say 'two nodes, as the README says'
install_node node-1 10.77.0.1
install_node node-2 10.77.0.2

# An answer of the API; what an operator types.
api() {
    path=$1
    shift
    inside node-1 curl -sS "http://127.0.0.1:7400/api/$path" -H "Authorization: Bearer $token" \
        -H 'content-type: application/json' "$@"
}
fleet() { inside node-1 runuser -u webhost-coordinator -- webhost-coordinator "$@"; }
field() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" | head -n 1; }

# Until the command's output has the words, two minutes at most.
until_says() {
    wanted=$1
    shift
    for _ in $(seq 240); do
        said=$("$@" 2>&1) || :
        if printf '%s' "$said" | grep -q "$wanted"; then return 0; fi
        sleep 0.5
    done
    die "no \"$wanted\" in: $said"
}

status() { inside "$1" webhost-agent status; }
for name in node-1 node-2; do until_says ', healthy' status "$name"; done
say "both agents are healthy: $(inside node-1 systemctl show -p StatusText --value webhost-agent)"

# --- a tenant moves ---------------------------------------------------------------

api tenants -d "{\"customer_id\":\"$tenant\",\"slug\":\"nordwind\",\"name\":\"Nordwind\",\"email\":\"a@nordwind.example\",\"plan\":\"hobby\"}" >/dev/null
until_says '"node":"node-' api "tenants/$tenant/place"
here=$(api "tenants/$tenant/place" | field node)
[ "$here" = node-1 ] && there=node-2 || there=node-1
inside "$here" curl -sSf http://127.0.0.1:4000/internal/customers -H 'content-type: application/json' -d "{\"id\":\"$tenant\",
    \"name\":\"Nordwind\",\"slug\":\"nordwind\",\"email\":\"a@nordwind.example\",\"plan\":\"hobby\",
    \"vehicles\":[{\"id\":\"$vehicle\",\"name\":\"Van\"}]}"
until_says '"state":"active"' api "tenants/$tenant/place"
say "nordwind lives on $here"

# Devices: one position after the other, each with an id of its own, through
# nginx; what was answered is written down.
cat >"$work/shared/device" <<DEVICE
while [ ! -e /mnt/live/stop ]; do
    id=\$(cat /proc/sys/kernel/random/uuid)
    code=\$(curl -s -o /dev/null -m 20 -w '%{http_code}' http://127.0.0.1:8080/ingest/$tenant/positions \\
        -H 'Host: $host' -H 'content-type: application/json' -d '{"points":[{"id":"'\$id'",
        "vehicle_id":"$vehicle","recorded_at":"'\$(date -u +%FT%TZ)'","latitude":50.1,"longitude":8.6,
        "speed":50.0,"heading":90.0}]}') || :
    echo "\$code \$id"
done
DEVICE

devices() {
    rm -f "$work/shared/stop"
    pids=
    for number in 1 2 3 4; do
        inside "$here" sh /mnt/live/device >>"$work/device-$number" &
        pids="$pids $!"
    done
}

# Ends the devices; every position that was acknowledged is on the node $1.
found_on() {
    touch "$work/shared/stop"
    for pid in $pids; do wait "$pid" || :; done
    other=$(cat "$work"/device-* | grep -vc '^201 ') || :
    [ "$other" = 0 ] || die "$other requests failed: $(cat "$work"/device-* | grep -v '^201 ' | cut -c 1-3 | sort | uniq -c)"
    cat "$work"/device-* | cut -d ' ' -f 2 | sort >"$work/acknowledged"
    inside "$1" runuser -u postgres -- psql -Atq webhost \
        -c "select id from gps_positions where customer_id = '$tenant'" | sort >"$work/found"
    diff "$work/acknowledged" "$work/found" >"$work/diff" ||
        die "acknowledged and found differ: $(head -n 5 "$work/diff")"
    say "$(wc -l <"$work/found") positions acknowledged, all of them and no other on $1, no request failed"
}

devices
sleep 5
fleet move preflight nordwind --kind lateral --to "$there" | tail -n 1
id=$(fleet move begin nordwind --kind lateral --to "$there" | sed 's/move \([^ ]*\) .*/\1/')
until_says '"state":"way_back"' api "moves/$id"
sleep 3
found_on "$there"
devices
sleep 3
fleet move rollback "$id" --reason 'a rehearsal' >/dev/null
until_says '"state":"kept"' api "moves/$id"
sleep 3
found_on "$here"

# --- agents that die and freeze --------------------------------------------------

pid_of() { inside "$here" systemctl show -p MainPID --value webhost-agent; }
before=$(pid_of)
inside "$here" kill -KILL "$before"
until_says ', healthy' status "$here"
[ "$(pid_of)" != "$before" ] || die 'the killed agent still runs'
say 'a killed agent is back'
inside "$here" sh -c 'mkdir -p /run/systemd/system/webhost-agent.service.d &&
    printf "[Service]\nWatchdogSec=15s\n" >/run/systemd/system/webhost-agent.service.d/soon.conf &&
    systemctl daemon-reload && systemctl restart webhost-agent'
until_says ', healthy' status "$here"
before=$(pid_of)
inside "$here" kill -STOP "$before"
until_says 'Watchdog timeout' inside "$here" journalctl --no-pager -o cat -u webhost-agent
until_says ', healthy' status "$here"
[ "$(pid_of)" != "$before" ] || die 'the frozen agent still runs'
say 'a frozen agent was ended by the watchdog, and is back'
denied=$(inside "$here" journalctl --no-pager -o cat -u 'webhost-*' | grep -ciE 'EPERM|operation not permitted|permission denied') || :
[ "$denied" = 0 ] || die "$denied lines in the journal say that something is not permitted"
say 'all of it held'
