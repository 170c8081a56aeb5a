#!/bin/busybox sh
# First program of a guest: from the initial RAM disk to the host's files under an overlay.
# Tags: "host" is the host's / (read-only), "share" this guest's own directory on the host.
bb=/bin/busybox
fail() {
    $bb echo "lab: stage 1 failed: $*" >/dev/kmsg
    $bb reboot -f
}

$bb mount -t proc proc /proc
# Only whether a guest runs at all is to be found out.
$bb grep -q lab.probe /proc/cmdline && $bb reboot -f
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs dev /dev
while read -r module; do
    $bb insmod "/modules/$module" 2>/dev/null
done </modules/order

options=trans=virtio,version=9p2000.L,msize=262144
$bb mount -t 9p -o "$options,access=any" share /share || fail "share"
$bb mount -t 9p -o "$options,access=any,ro,cache=loose" host /lower || fail "host"
# LAB_BINARIES and LAB_MODULES are directories on the host.
. /share/env

$bb mount -t tmpfs -o size=80%,mode=755 tmpfs /upper
$bb mkdir /upper/top /upper/work
$bb mount -t overlay -o lowerdir=/lower,upperdir=/upper/top,workdir=/upper/work root /new ||
    fail "overlay"
$bb mkdir -p /new/lab/bin /new/lab/share /new/lib/modules
$bb mount --bind "/lower$LAB_BINARIES" /new/lab/bin || fail "binaries"
$bb mount --bind "/lower$LAB_MODULES" /new/lib/modules || fail "modules"
for place in dev proc sys; do
    $bb mount --move /$place /new/$place
done
$bb mount --move /share /new/lab/share
exec $bb switch_root /new /bin/busybox sh /lab/share/stage2
