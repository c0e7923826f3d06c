package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// LayerSum says in a few bytes what a replica's layer holds: replicas that are equal have equal sums.
type LayerSum struct {
	Chunk   string `json:"chunk"`
	Version uint64 `json:"version"`
	State   string `json:"state"`
	Suspect bool   `json:"suspect"` // not resolved since a crash, or will be suspect at the next start
	Layer   uint32 `json:"layer"`
	Sum     string `json:"sum"` // of the table; whether the data match the table is for Check to say
}

func (l LayerSum) String() string {
	suspect := ""
	if l.Suspect {
		suspect = " suspect"
	}
	return fmt.Sprintf("chunk %s layer %d version %d %s%s sum %s", l.Chunk, l.Layer, l.Version, l.State, suspect, l.Sum)
}

// Sums returns the sum of every layer in a store that is not in use, sorted by chunk.
func Sums(fsys disk.FS, dir string) (sums []LayerSum, err error) {
	was, err := readState(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("sums of %s: %w", dir, err)
	}
	for _, id := range slices.SortedFunc(maps.Keys(was.replicas), compareIDs) {
		rec := was.replicas[id]
		suspicion, open := was.activity[id]
		suspect := suspicion != Sound || open && !was.clean
		for _, num := range rec.layers {
			sum, err := layerSum(fsys, dir+"/"+layerName(id, rec.file(num)), chunk.Header{ID: id, Layer: rec.file(num), Blocks: rec.blocks})
			if err != nil {
				return nil, fmt.Errorf("sums of %s: %w", dir, about(id, err))
			}
			sums = append(sums, LayerSum{id.String(), rec.version, rec.state.String(), suspect, num, sum})
		}
	}
	return sums, nil
}

func layerSum(fsys disk.FS, name string, h chunk.Header) (string, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if h, err = checkHeader(f, h); err != nil {
		return "", err
	}
	codes, err := readTable(f, h)
	if err != nil {
		return "", err
	}
	table := chunk.EncodeCodes(make([]byte, len(codes)*chunk.CodeSize), codes)
	sum := sha256.Sum256(table)
	return hex.EncodeToString(sum[:8]), nil
}
