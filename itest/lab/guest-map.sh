# Runs in the guest: a volume as a disk by pstorage-nbd, which sees to its connections.
ln -s pstorage pstorage-nbd

device() { echo /dev/pstorage/v; }

map() { ./pstorage-nbd map v --server "$server" --insecure-network --connections 4 --dead-timeout 90s; }

attach() { # SERVER
    server=$1
    map && ./pstorage-nbd list && [ "$(cat /sys/block/nbd0/queue/write_cache)" = 'write back' ]
}

# What the keeper and the kernel have to say.
explain() { cat /run/pstorage/nbd/v.log; dmesg | grep nbd | tail -n 20; false; }

# A file system that gives space back, and is whole afterwards.
filesystem() {
    mke2fs -q -F -t ext4 "$(device)" && mount "$(device)" /mnt && head -c 40M /dev/urandom > /mnt/data && sync || return
    ! ./pstorage-nbd unmap v || return # it is mounted
    fstrim -v /mnt && sha256sum < /mnt/data > sum && umount /mnt && e2fsck -fn "$(device)"
}

# A volume is mapped once.
twice() { ! map; }

lose_keeper() { kill -9 "$(./pstorage-nbd list --json | sed -n 's/.*"keeper": \([0-9]*\).*/\1/p')"; }

keeper_is_gone() { ./pstorage-nbd list | grep -q 'none$'; }

detach() { ./pstorage-nbd unmap v && [ -z "$(./pstorage-nbd list | grep nbd0)" ] && ! [ -e /dev/pstorage/v ]; }

. ./guest-writer.sh
. ./guest-shell.sh
