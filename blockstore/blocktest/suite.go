// Package blocktest is the conformance suite of block.Device: every implementation runs it.
//
// # DESIGN
//
// Run makes a fresh device for each promise of the interface and tests it through Submit alone. Nothing waits for time to pass: a test
// waits for completions, so the suite runs on virtual and on real time. Metamorphic compares a device, through random batches of
// operations, with a plain slice of bytes; implementations with more states (failures, reopening) drive it themselves through Steps.
package blocktest

import (
	"testing"

	"pstorage/blockstore/block"
)

// Factory makes an empty device of exactly this size; the suite closes it.
type Factory func(t *testing.T, size int64) block.Device

// Run tests every promise of block.Device.
func Run(t *testing.T, make Factory) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Factory)
	}{
		{"AFreshDeviceReadsAsZeros", freshReadsZeros},
		{"WhatIsWrittenIsRead", writtenIsRead},
		{"SectorsWithinABlockKeepApart", sectorsKeepApart},
		{"TheLargestTransferWorks", largestTransfer},
		{"EveryRequestCompletesOnce", completesOnce},
		{"ABadRequestFailsAlone", badFailsAlone},
		{"BuffersOfWritesAreLeftAlone", buffersLeftAlone},
		{"ACompleterMaySubmit", completerSubmits},
		{"NothingIsNothing", nothingIsNothing},
		{"ZeroedRangesReadAsZeros", zeroedReadsZeros},
		{"FlushAndFUASucceed", flushAndFUA},
		{"CompareAndWriteWritesWhenEqual", compareEqual},
		{"CompareAndWriteNamesTheDifference", compareDiffers},
		{"CompareAndWriteIsAtomic", compareAtomic},
		{"OverlappingWritesLeaveOneOfThem", overlapping},
		{"AReadNeverSeesATornSector", tornSectors},
		{"ExtentsCoverTheRange", extentsCover},
		{"ExtentsSayWhatIsZero", extentsZero},
		{"ExtentsOutOfRangeFail", extentsRange},
		{"CloseCompletesWhatIsInFlight", closeCompletes},
		{"AClosedDeviceRefuses", closedRefuses},
		{"ItBehavesLikeAPlainDisk", func(t *testing.T, make Factory) { Metamorphic(t, make) }},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, make) })
	}
}

// open makes a device that is closed when the test ends.
func open(t *testing.T, make Factory, size int64) block.Device {
	t.Helper()
	d := make(t, size)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if d.Size() != size {
		t.Fatalf("size is %d, want %d", d.Size(), size)
	}
	return d
}
