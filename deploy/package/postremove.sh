#!/bin/sh
# After a removal (the deb gives "remove", the rpm 0) and a purge of the deb. Settings are removed by
# dpkg. Files of the administrator stay: credentials, other environment files, and the key of the
# embedded keeper, without which its data cannot be read. The user stays too, so that no other user
# gets its number.
set -e

case "$1" in
remove | purge | 0) ;;
*) exit 0 ;;
esac

if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
rmdir /run/vault-kube-kms* 2>/dev/null || true

if [ "$1" = purge ] && [ -d /etc/vault-kube-kms ]; then
    rmdir /etc/vault-kube-kms 2>/dev/null ||
        echo "vault-kube-kms: /etc/vault-kube-kms holds files that are not of the package; they stay"
fi
