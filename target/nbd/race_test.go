//go:build race

package nbd

// raceEnabled: pools drop at random what is put into them, so allocations cannot be counted.
const raceEnabled = true
