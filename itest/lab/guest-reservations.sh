# Runs in each of two guests that share a volume, as nodes of a failover cluster do.
target=iqn.2014-04.com.pstorage:v

attach() { # NAME PORTAL
    local path=/dev/disk/by-path/ip-$2-iscsi-$target-lun-1
    modprobe -a iscsi_tcp sg
    echo "InitiatorName=iqn.1993-08.org.debian:01:$1" > /etc/iscsi/initiatorname.iscsi
    iscsid && iscsiadm -m node -o new -T $target -p "$2,1" && iscsiadm -m node -T $target -p "$2" --login || return
    until [ -b "$path" ]; do sleep 0.5; done # udev makes it
    disk=$(readlink -f "$path")
}

# A persistent reservation command; once more where the disk had to tell first that something had happened (exit code 6).
pr() {
    local code=0
    sg_persist --no-inquiry "$@" "$disk" || code=$?
    [ $code != 6 ] || { sg_persist --no-inquiry "$@" "$disk"; return; }
    return $code
}

# These keys are registered, and no others.
keys() { # KEY...
    local found
    found=$(pr --in --read-keys) || return
    [ "$(grep -o '0x[0-9a-f]*$' <<< "$found" | sort | xargs)" = "$*" ] || { echo "$found"; return 1; }
}

# The reservation is held with this key and type.
held() { # KEY TYPE
    local found
    found=$(pr --in --read-reservation) || return
    grep -q "Key=$1" <<< "$found" && grep -q "type: $2" <<< "$found" || { echo "$found"; return 1; }
}

fill() { yes "$1" | dd of="$disk" bs=4096 count=64 iflag=fullblock oflag=direct status=none; } # LETTER

look() { dd if="$disk" of=seen bs=4096 count=64 iflag=direct status=none; }

filled() { look && [ "$(tr -d "$1\n" < seen | wc -c)" = 0 ]; } # LETTER

refused() { # COMMAND...
    local said
    said=$("$@" 2>&1) && { echo "not refused"; return 1; }
    grep -qi 'reservation conflict\|invalid exchange' <<< "$said" || { echo "$said"; return 1; } # from sg_persist, from the kernel
}

# Writes all the time, until that is refused.
flood() { # LETTER
    { while fill "$1"; do echo; done; } > fills 2> flood.log &
    flood=$!
}

flooding() { kill -0 $flood && [ -s fills ]; }

flooded() {
    wait $flood
    grep -qi 'invalid exchange' flood.log || { cat flood.log; return 1; }
    wc -l < fills
}

detach() { iscsiadm -m node -T $target --logout; }

. ./guest-shell.sh
