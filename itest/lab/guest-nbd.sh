# Runs in the guest: a volume as an NBD disk of the Linux kernel, first over several connections, then over one.
set -eux
modprobe nbd nbds_max=4
nbd-client 10.0.2.2 10809 /dev/nbd0 -N v -persist -timeout 30 -connections 2
cat /sys/block/nbd0/queue/{logical_block_size,discard_max_bytes,write_cache}
test "$(cat /sys/block/nbd0/queue/write_cache)" = 'write back'
mke2fs -q -F -t ext4 /dev/nbd0
mount -o discard /dev/nbd0 /mnt
head -c 40M /dev/urandom > /mnt/data
sync
before=$(sha256sum < /mnt/data)
head -c 20M /dev/zero > /mnt/short-lived && sync && rm /mnt/short-lived
fstrim -v /mnt
umount /mnt
e2fsck -fn /dev/nbd0
nbd-client -d /dev/nbd0

nbd-client 10.0.2.2 10809 /dev/nbd1 -N v
e2fsck -fn /dev/nbd1
mount -o ro /dev/nbd1 /mnt
test "$(sha256sum < /mnt/data)" = "$before"
umount /mnt
nbd-client -d /dev/nbd1
