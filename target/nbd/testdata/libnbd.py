"""What libnbd can do to a volume of at least 64 MiB, with its strict checks off so that the server's own are met."""
import errno
import sys

import nbd

uri = sys.argv[1]


def fails(code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except nbd.Error as e:
        assert e.errnum == code, f"{call.__name__}{args}: {e}"
    else:
        raise AssertionError(f"{call.__name__}{args} did not fail")


def exercise(structured):
    h = nbd.NBD()
    h.set_strict_mode(0)
    h.set_request_structured_replies(structured)
    h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    h.connect_uri(uri)
    size = h.get_size()
    assert h.get_structured_replies_negotiated() == structured

    data = bytes(range(256)) * 16
    h.pwrite(data, 4096)
    h.pwrite(data * 64, 1 << 20, nbd.CMD_FLAG_FUA)
    assert h.pread(4096, 4096) == data
    assert h.pread(512, 4608) == data[:512]
    assert h.pread(256 << 10, 1 << 20) == data * 64
    big = bytearray(data * 8192)  # 32 MiB
    h.pwrite(big, 32 << 20)
    assert h.pread(len(big), 32 << 20) == big
    h.zero(4096, 1 << 20, nbd.CMD_FLAG_NO_HOLE)
    h.trim(4096, (1 << 20) + 4096, nbd.CMD_FLAG_FUA)
    assert h.pread(8192, 1 << 20) == bytes(8192)
    h.flush()

    fails(errno.EINVAL, h.pread, 512, size)
    fails(errno.EINVAL, h.pread, 512, 100)
    fails(errno.ENOSPC, h.pwrite, bytes(512), size)
    fails(errno.ENOSPC, h.zero, 512, size)
    fails(errno.EINVAL, h.trim, 512, size)
    fails(errno.EINVAL, h.pwrite, bytes(100), 0)
    fails(errno.EINVAL, h.pread, 0, 0)
    fails(errno.ENOTSUP, h.zero, 512, 0, nbd.CMD_FLAG_FAST_ZERO)
    assert h.can_fast_zero() and h.can_cache() and h.can_df() == structured
    h.pwrite(data, 3 << 20)
    h.zero(4096, 3 << 20, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
    assert h.pread(4096, 3 << 20) == bytes(4096)
    h.cache(64 << 20, 0)
    fails(errno.EINVAL, h.cache, 512, size)

    # Many at once, completed in any order.
    buffers = [nbd.Buffer.from_bytearray(bytearray([i] * 4096)) for i in range(200)]
    for command in (h.aio_pwrite, h.aio_pread):
        cookies = [command(b, i * 65536) for i, b in enumerate(buffers)]
        while cookies:
            h.poll(-1)
            cookies = [c for c in cookies if not h.aio_command_completed(c)]
    assert all(b.to_bytearray() == bytearray([i] * 4096) for i, b in enumerate(buffers))

    if structured:
        seen = []
        h.block_status(8192, 0, lambda context, offset, entries, err: seen.append((context, offset, list(entries))) or 0)
        assert seen == [("base:allocation", 0, [8192, 0])] or seen[0][2][1] in (0, 3), seen
    h.shutdown()


exercise(False)
exercise(True)
