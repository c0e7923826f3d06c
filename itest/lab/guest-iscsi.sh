# Runs in the guest: a volume as an iSCSI disk of the Linux kernel. The volume is LUN 1 of the target named after it.
set -eux
portal=10.0.2.2:3260
target=iqn.2014-04.com.pstorage:v
modprobe iscsi_tcp
echo 'InitiatorName=iqn.1993-08.org.debian:01:guest' > /etc/iscsi/initiatorname.iscsi
iscsid
iscsiadm -m discovery -t sendtargets -p $portal
# Discovery names the address that the target has for itself, which is not the one it has from here.
iscsiadm -m node -o new -T $target -p $portal,1
disk() { udevadm settle; readlink -f /dev/disk/by-path/ip-$portal-iscsi-$target-lun-1; }

iscsiadm -m node -T $target -p $portal --login
d=$(disk)
sg_inq "$d"
sg_vpd --page=lbpv "$d"
sg_readcap --long "$d"
mke2fs -q -F -t ext4 "$d"
mount -o discard "$d" /mnt
head -c 40M /dev/urandom > /mnt/data
sync
before=$(sha256sum < /mnt/data)
head -c 20M /dev/zero > /mnt/short-lived && sync && rm /mnt/short-lived
fstrim -v /mnt
umount /mnt
e2fsck -fn "$d"
iscsiadm -m node -T $target -p $portal --logout

iscsiadm -m node -T $target -p $portal --login
d=$(disk)
e2fsck -fn "$d"
mount -o ro "$d" /mnt
test "$(sha256sum < /mnt/data)" = "$before"
umount /mnt
iscsiadm -m node -T $target -p $portal --logout
