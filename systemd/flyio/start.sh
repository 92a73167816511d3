#!/bin/sh
# The application in front, the agent beside it: the agent is started again when
# it ends, and a machine is never down because of it.
set -u

mkdir -p "${WEBHOST_AGENT_STATE_DIR:-/data/webhost-agent}"
while :; do
    # Without an identity it ends at once, and is tried again until there is one.
    webhost-agent run --config /etc/webhost/agent.toml
    sleep 5
done &

exec /app/bin/webhost start
