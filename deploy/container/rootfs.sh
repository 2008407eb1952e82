#!/bin/sh
# Makes the base of the image from Debian packages: no registry, no shell, no package manager.
#
# usage: rootfs.sh DIRECTORY [shell]
#
# DIRECTORY must not exist. It gets glibc and libgcc (what the program is linked with), the bundle
# of authorities, the files that name users, and the directories that the program writes to. With
# `shell`, BusyBox is added for those who debug in the container.
set -eu
umask 022
root=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$root/etc/ssl/certs" "$root/var/lib/dpkg/status.d" "$root/run/vault-kube-kms" "$root/tmp"

packages="libc6 libgcc-s1 gcc-12-base ca-certificates netbase"
[ "${2:-}" != shell ] || packages="$packages busybox-static"
chmod 755 "$work"
# shellcheck disable=SC2086 # a list of names
(cd "$work" && apt-get -o APT::Sandbox::User=root download -qq $packages)
for package in $packages; do
    deb=$(echo "$work/$package"_*.deb)
    dpkg-deb --extract "$deb" "$work/$package"
    # Scanners find the packages and their known weaknesses by these files.
    dpkg-deb --field "$deb" Package Version Architecture Source Maintainer >"$root/var/lib/dpkg/status.d/$package"
    mkdir -p "$root/usr/share/doc/$package"
    # The text for libgcc is in gcc-12-base.
    [ "$package" = libgcc-s1 ] || cp "$work/$package/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/"
done

# Exactly the libraries that `ldd` names; glibc looks up names by itself.
libraries=$(cd "$work" && find libc6 libgcc-s1 -name 'ld-linux-*.so.*' -o -name libc.so.6 -o -name libm.so.6 -o -name libgcc_s.so.1)
for library in $libraries; do
    place=$root/${library#*/}
    mkdir -p "$(dirname "$place")"
    cp -L "$work/$library" "$place"
done
find "$work/ca-certificates/usr/share/ca-certificates/mozilla" -name '*.crt' | LC_ALL=C sort |
    xargs cat >"$root/etc/ssl/certs/ca-certificates.crt"
cp "$work/netbase/etc/services" "$root/etc/services"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
cat >"$root/etc/passwd" <<'USERS'
root:x:0:0:root:/:/sbin/nologin
vault-kube-kms:x:65532:65532:vault-kube-kms:/:/sbin/nologin
USERS
cat >"$root/etc/group" <<'GROUPS'
root:x:0:
vault-kube-kms:x:65532:
GROUPS
# A volume that is mounted here gets these modes: any uid may make its socket.
chmod 1777 "$root/tmp" "$root/run/vault-kube-kms"
if [ "${2:-}" = shell ]; then
    mkdir -p "$root/bin"
    cp "$work/busybox-static/bin/busybox" "$root/bin/busybox"
    for name in sh cat ls ps ip env; do
        ln -s busybox "$root/bin/$name"
    done
fi
