# Runs in the guest: a whole cluster on the attached disk, until the power is cut.
set -e
blkid /dev/vdc > /dev/null || mke2fs -q -t ext4 /dev/vdc
mkdir -p /data
mount /dev/vdc /data
exec ./pstorage up --data /data/cluster --cs 3 --replicas 3:2 --chunk-size 4M --volume v=256M --nbd 0.0.0.0:10809 --iscsi '' --insecure-network
