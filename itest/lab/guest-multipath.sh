# Runs in the guest: a volume as one multipath disk over several portals, and a writer that notes how long each write waits.
# iscsid.conf and multipath.conf beside this are what docs/iscsi.md recommends.
target=iqn.2014-04.com.pstorage:v
slots=512 # blocks of 4 KiB that are written in turn

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

# Writes block after block, each with its own number, and keeps in "expected" what was acknowledged.
write() {
    local n began line device=$(device)
    truncate -s $((slots * 4096)) expected
    for ((n = 1; ; n++)); do
        [ ! -e stop ] || return 0
        line=$(printf %015d $n)
        for ((began = 0; began < 256; began++)); do echo "$line"; done > block
        began=${EPOCHREALTIME/./}
        dd if=block of="$device" bs=4096 seek=$((n % slots)) oflag=direct,dsync conv=nocreat status=none || return
        echo $((${EPOCHREALTIME/./} - began)) >> waits
        dd if=block of=expected bs=4096 seek=$((n % slots)) conv=notrunc status=none
    done
}

begin() {
    until [ -b "$(device)" ]; do sleep 0.5; done # udev makes it
    dd if=/dev/zero of="$(device)" bs=1M count=$((slots / 256)) oflag=direct conv=nocreat status=none || return
    : > waits
    write > write.log 2>&1 &
    writer=$!
}

# How many writes were acknowledged; it fails where the writer has.
written() {
    kill -0 $writer || { cat write.log; return 1; }
    wc -l < waits
}

longest() { tail -n +"$1" waits | sort -n | tail -n 1; } # FROM: of these writes, in microseconds

finish() {
    touch stop
    wait $writer || { cat write.log; return 1; }
    dd if="$(device)" bs=1M count=$((slots / 256)) iflag=direct status=none | cmp - expected
}

detach() {
    udevadm settle # it looks at a disk that was written to, and -R waits for others that do
    multipath -R 30 -F && iscsiadm -m node -T $target --logout
}

. ./guest-shell.sh
