//go:build race

package iscsi

// raceDetector: pools lose things on purpose when it is on.
const raceDetector = true
