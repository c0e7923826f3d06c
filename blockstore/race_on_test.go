//go:build race

package blockstore

const raceEnabled = true // pools forget at random then
