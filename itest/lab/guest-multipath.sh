# Runs in the guest: a volume as one multipath disk over several portals, and a writer that notes how long each write waits.
# iscsid.conf and multipath.conf beside this are what docs/iscsi.md recommends.
target=iqn.2014-04.com.pstorage:v

attach() { # PORTAL...
    local portal
    modprobe -a iscsi_tcp dm_multipath
    cp iscsid.conf /etc/iscsi/iscsid.conf
    cp multipath.conf /etc/multipath.conf
    echo 'InitiatorName=iqn.1993-08.org.debian:01:guest' > /etc/iscsi/initiatorname.iscsi
    iscsid && multipathd || return
    for portal; do iscsiadm -m discovery -t sendtargets -p "$portal" || return; done
    iscsiadm -m node -T $target --login
}

# After how many seconds at most the kernel gives the commands on a path that was cut to another: for an answer to a NOP, and for the
# connection to come back.
timers() {
    local timer sum=0
    for timer in iscsi_connection/connection1:0/{recv,ping}_tmo iscsi_session/session1/recovery_tmo; do
        sum=$((sum + $(cat /sys/class/$timer)))
    done
    echo $sum
}

# How many paths both device-mapper and multipathd's checker take for good; how many device-mapper has given up.
active_paths() { multipathd show paths raw format '%t %T' | grep -c '^active ready'; true; }
failed_paths() { multipathd show paths raw format '%t %T' | grep -c '^failed'; true; }

device() { echo /dev/mapper/$(multipathd show maps raw format %n); }

detach() {
    udevadm settle # it looks at a disk that was written to, and -R waits for others that do
    multipath -R 30 -F && iscsiadm -m node -T $target --logout
}

. ./guest-writer.sh
. ./guest-shell.sh
