#!/bin/sh
# After an installation or an upgrade: the deb gives "configure", the rpm the number of versions that
# are installed now. Nothing is started or restarted: the administrator
# chooses the time at which a control plane changes its KMS provider.
set -e

case "$1" in
configure | [0-9]*) ;;
*) exit 0 ;;
esac

systemd-sysusers vault-kube-kms.conf
# As tmpfiles.d says; systemd-tmpfiles does not work in a root without /proc.
chgrp vault-kube-kms /etc/vault-kube-kms
chmod 0750 /etc/vault-kube-kms

[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
systemctl list-units --plain --no-legend --state=active,activating 'vault-kube-kms*.service' |
    while read -r unit _; do
        echo "vault-kube-kms: $unit still runs the former program; for the new one: systemctl restart $unit"
    done
