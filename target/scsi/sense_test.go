package scsi

import "testing"

func TestSenseDataInBothFormats(t *testing.T) {
	tests := []struct {
		sense             sense
		fixed, descriptor string
	}{
		{sense{key: keyUnitAttention, code: ascPowerOn, field: -1}, "70000600000000" + "0a" + "00000000" + "2900" + "00000000", "7206290000000000"},
		{sense{key: keyIllegal, code: ascInvalidFieldCDB, field: 7}, "70000500000000" + "0a" + "00000000" + "2400" + "00c00007", "7205240000000008" + "02060000c0000700"},
		{sense{key: keyIllegal, code: ascInvalidFieldParam, field: 260, param: true}, "70000500000000" + "0a" + "00000000" + "2600" + "00800104", "7205260000000008" + "0206000080010400"},
		{sense{key: keyMiscompare, code: ascMiscompare, hasInfo: true, info: 0x123, field: -1}, "f0000e00000123" + "0a" + "00000000" + "1d00" + "00000000", "720e1d000000000c" + "000a80000000000000000123"},
		{sense{key: keyMedium, code: ascReadError, hasInfo: true, info: 1 << 33, field: -1}, "70000300000000" + "0a" + "00000000" + "1100" + "00000000", "720311000000000c" + "000a80000000000200000000"},
		{sense{key: keyNotReady, code: ascSanitizing, field: -1, hasProgress: true, progress: 0x1234}, "70000200000000" + "0a" + "00000000" + "041b" + "00801234", "7202041b00000008" + "0206000080123400"},
	}
	for _, x := range tests {
		if got := hexOf(x.sense.append(nil, false)); got != x.fixed {
			t.Errorf("fixed: %s, want %s", got, x.fixed)
		}
		got := x.sense.append(nil, true)
		if hexOf(got) != x.descriptor {
			t.Errorf("descriptor: %x, want %s", got, x.descriptor)
		}
		if len(got) > maxSense {
			t.Errorf("%d bytes of sense data", len(got))
		}
	}
}
