# Runs in the guest, in a script that has a function "device": a writer that notes how long each write waits.
slots=512 # blocks of 4 KiB that are written in turn

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
