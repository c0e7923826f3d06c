package scsi

func dataCommands() []command {
	rd := func(op byte, name string, usage []byte, p func(*Task)) command {
		return command{op: op, action: -1, name: name, class: ReadData, traits: medium | reserveRead, usage: usage, prepare: p, start: startRead}
	}
	wr := func(op byte, name string, usage []byte, p func(*Task)) command {
		return command{op: op, action: -1, name: name, class: WriteData, traits: medium | writes, usage: usage, prepare: p,
			start: startWrite, step: stepWrite}
	}
	wv := func(op byte, name string, usage []byte) command {
		return command{op: op, action: -1, name: name, class: WriteData, traits: medium | writes, usage: usage,
			prepare: prepareWriteVerify, start: startWriteVerify, step: stepWriteVerify}
	}
	ver := func(op byte, name string, usage []byte) command {
		return command{op: op, action: -1, name: name, class: ReadData, traits: medium | reserveRead, usage: usage,
			prepare: prepareVerify, start: startVerify, step: stepVerify}
	}
	pre := func(op byte, name string, usage []byte) command {
		return command{op: op, action: -1, name: name, traits: medium | reserveRead, usage: usage, prepare: preparePrefetch, start: startNothing}
	}
	sync := func(op byte, name string, usage []byte) command {
		return command{op: op, action: -1, name: name, class: FlushData, traits: medium, usage: usage, prepare: prepareSync, start: startSync}
	}
	return []command{
		rd(opRead6, "READ(6)", []byte{opRead6, 0x1f, 0xff, 0xff, 0xff, 0x07}, prepareRead6),
		rd(opRead10, "READ(10)", usage10(opRead10, 0xf8), prepareRead),
		rd(opRead12, "READ(12)", usage12(opRead12, 0xf8), prepareRead),
		rd(opRead16, "READ(16)", usage16(opRead16, 0xf8), prepareRead),
		wr(opWrite6, "WRITE(6)", []byte{opWrite6, 0x1f, 0xff, 0xff, 0xff, 0x07}, prepareWrite6),
		wr(opWrite10, "WRITE(10)", usage10(opWrite10, 0xf8), prepareWrite),
		wr(opWrite12, "WRITE(12)", usage12(opWrite12, 0xf8), prepareWrite),
		wr(opWrite16, "WRITE(16)", usage16(opWrite16, 0xf8), prepareWrite),
		wv(opWriteVerify10, "WRITE AND VERIFY(10)", usage10(opWriteVerify10, 0xf6)),
		wv(opWriteVerify12, "WRITE AND VERIFY(12)", usage12(opWriteVerify12, 0xf6)),
		wv(opWriteVerify16, "WRITE AND VERIFY(16)", usage16(opWriteVerify16, 0xf6)),
		ver(opVerify10, "VERIFY(10)", usage10(opVerify10, 0xf6)),
		ver(opVerify12, "VERIFY(12)", usage12(opVerify12, 0xf6)),
		ver(opVerify16, "VERIFY(16)", usage16(opVerify16, 0xf6)),
		pre(opPrefetch10, "PRE-FETCH(10)", usage10(opPrefetch10, 0x02)),
		pre(opPrefetch16, "PRE-FETCH(16)", usage16(opPrefetch16, 0x02)),
		sync(opSync10, "SYNCHRONIZE CACHE(10)", usage10(opSync10, 0x02)),
		sync(opSync16, "SYNCHRONIZE CACHE(16)", usage16(opSync16, 0x02)),
		{op: opCompareAndWrite, action: -1, name: "COMPARE AND WRITE", class: WriteData, traits: medium | writes,
			usage:   []byte{opCompareAndWrite, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xff, 0x3f, 0x07},
			prepare: prepareCompareAndWrite, start: startCompareAndWrite},
		{op: opWriteAtomic16, action: -1, name: "WRITE ATOMIC(16)", class: WriteData, traits: medium | writes, offered: offersAtomic,
			usage:   []byte{opWriteAtomic16, 0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0xff, 0xff, 0x3f, 0x07},
			prepare: prepareWriteAtomic, start: startAtomic, step: stepWrite},
		{op: opOrWrite16, action: -1, name: "ORWRITE(16)", class: WriteData, traits: medium | writes,
			usage: usage16(opOrWrite16, 0xf8), prepare: prepareOrWrite, start: startOrWrite, step: stepOrWrite},
	}
}

func usage10(op, flags byte) []byte {
	return []byte{op, flags, 0xff, 0xff, 0xff, 0xff, 0x3f, 0xff, 0xff, 0x07}
}

func usage12(op, flags byte) []byte {
	return []byte{op, flags, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x07}
}

func usage16(op, flags byte) []byte {
	return []byte{op, flags, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x07}
}
