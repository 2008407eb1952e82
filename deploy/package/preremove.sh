#!/bin/sh
# Before a removal (the deb gives "remove", the rpm 0), and not before an upgrade: stops the service.
set -e

case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac

# The socket first, because a client that connects would start the service again.
if [ -d /run/systemd/system ]; then
    systemctl stop vault-kube-kms.socket
    systemctl stop 'vault-kube-kms*.service'
fi
systemctl --no-reload --quiet disable vault-kube-kms.socket vault-kube-kms.service vault-kube-kms@.service
