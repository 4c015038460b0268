#!/usr/bin/env bash
# Makes the image fbench/base:1 from Debian's packages alone, for machines that reach no image registry.
# Needs root, debootstrap and an engine that answers. About a minute.
set -euo pipefail

suite=bookworm   # fixed, so that the image is the same from every machine; Python 3.11
image=fbench/base:1

source "$(dirname "${BASH_SOURCE[0]}")/mirror.sh"
mirror=$(debian_mirror)

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "base.sh: $suite from $mirror" >&2
if ! debootstrap --variant=minbase --keyring="$keyring" --include=bash,ca-certificates,git,python3 \
  "$suite" "$root" "$mirror" >"$work/log" 2>&1; then
  tail -n 20 "$work/log" "$root/debootstrap/debootstrap.log" >&2 || true
  echo "base.sh: debootstrap failed, see above" >&2
  exit 1
fi

# What a package installed later must not do in a container, and what nobody reads there.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"
cat >"$root/etc/apt/apt.conf.d/docker" <<'CONF'
APT::Install-Recommends "false";
Acquire::Languages "none";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };
CONF
cat >"$root/etc/dpkg/dpkg.cfg.d/docker" <<'CONF'
force-unsafe-io
path-exclude /usr/share/doc/*
path-exclude /usr/share/man/*
path-exclude /usr/share/locale/*
CONF
ln -s /usr/bin/python3 "$root/usr/local/bin/python"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/* "$root"/var/log/*.log
rm -f "$root"/etc/hostname "$root"/etc/resolv.conf "$root"/etc/machine-id

tar --create --numeric-owner --one-file-system --directory "$root" . |
  docker import --change 'CMD ["bash"]' --change 'ENV LANG=C.UTF-8' --change 'LABEL fbench.image=base' - "$image" >/dev/null
echo "base.sh: made $image" >&2
