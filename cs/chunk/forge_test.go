package chunk

import "hash/crc32"

// forge returns the four bytes that, after zeros bytes of zero, make the CRC from seed come out as want.
func forge(seed uint32, zeros int, want uint32) []byte {
	state := ^crc32.Update(seed, castagnoli, make([]byte, zeros))
	var index [4]byte
	reg := ^want
	for i := 3; i >= 0; i-- { // backwards through the table: its entries' top bytes are all different
		for n := range 256 {
			if castagnoli[n]>>24 == reg>>24 {
				index[i] = byte(n)
				reg = (reg ^ castagnoli[n]) << 8
				break
			}
		}
	}
	out := make([]byte, 4)
	for i := range out {
		out[i] = byte(state) ^ index[i]
		state = castagnoli[index[i]] ^ state>>8
	}
	return out
}
