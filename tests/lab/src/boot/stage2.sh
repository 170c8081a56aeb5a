#!/bin/busybox sh
# Second program of a guest: makes a node of what runs on the host's files. Whatever the host itself
# runs or is configured for is hidden: a guest starts with empty /run, /tmp, /var and own settings.
. /lab/share/env

mount() { /bin/busybox mount "$@"; }
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t debugfs debugfs /sys/kernel/debug
# As the package of the kernel has it: what the host has there is of another one. Before the host's /tmp is
# hidden, for the lab may lie there.
mkdir -p /boot
mount -t tmpfs tmpfs /boot
cp "$LAB_BOOT"/config-* /boot/ 2>/dev/null
for place in /run /tmp /var /etc/corosync /etc/ocfs2 /etc/o2bridge; do
    mkdir -p $place
    mount -t tmpfs -o size=50% tmpfs $place
done
mkdir -p /run/lock /var/lib/corosync /var/log/corosync /var/tmp /etc/corosync/uidgid.d /lab/mnt
chmod 1777 /tmp /var/tmp /dev/shm /run/lock
ln -s /run /var/run
ln -s /run/lock /var/lock
ln -sf ../proc/self/mounts /etc/mtab
ln -s /proc/self/fd /dev/fd 2>/dev/null
rm -f /etc/resolv.conf /etc/default/o2cb
: >/etc/fstab

echo "$LAB_NAME" >/etc/hostname
echo "$LAB_MACHINE" >/etc/machine-id
cp /lab/share/hosts /etc/hosts
/bin/busybox hostname "$LAB_NAME"
/bin/busybox ip link set lo up
/bin/busybox ip addr add "$LAB_ADDRESS/24" dev eth0
/bin/busybox ip link set eth0 up

# There is no udev here that would do it.
/sbin/modprobe virtio_blk

echo 1 >/proc/sys/kernel/sysrq
echo 8 >/proc/sys/kernel/printk
cat >/etc/inittab <<INIT
::respawn:/lab/bin/lab-agent
::restart:/bin/busybox init
INIT
exec /bin/busybox init
