package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"pstorage/itest/nbd"
)

// Durable says how many writes a second are on stable storage, one after the other.
type Durable struct {
	Volume float64 // 4 KiB written and flushed through NBD
	Raw    float64 // 4 KiB written to a file and synced
}

func (d Durable) String() string {
	return fmt.Sprintf("%.0f writes with a flush each a second; on a plain file %.0f", d.Volume, d.Raw)
}

// DurableWrites measures both, a moment each and in turns, so that a disk that others use too is the same for both.
func DurableWrites(uri, dir string, each time.Duration) (d Durable, err error) {
	const turns = 3
	for range turns {
		result, err := nbd.Load(uri, nbd.Pattern{Write: true, Size: 4096, Depth: 1, FlushEvery: 1}, each)
		if err != nil {
			return d, err
		}
		raw, err := rawSyncs(filepath.Join(dir, "raw"), each)
		if err != nil {
			return d, err
		}
		d.Volume, d.Raw = d.Volume+result.PerSecond()/2/turns, d.Raw+raw/turns // a write and a flush
	}
	return d, nil
}

// rawSyncs overwrites blocks of a file, with a sync after each.
func rawSyncs(path string, how time.Duration) (perSecond float64, err error) {
	const blocks = 1024
	file, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer os.Remove(path)
	defer file.Close()
	if _, err := file.Write(make([]byte, blocks*4096)); err != nil {
		return 0, err
	}
	if err := file.Sync(); err != nil {
		return 0, err
	}
	data := make([]byte, 4096)
	began, n := time.Now(), 0
	for ; time.Since(began) < how; n++ {
		data[0] = byte(n)
		if _, err := file.WriteAt(data, int64(n%blocks)*4096); err != nil {
			return 0, err
		}
		if err := file.Sync(); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(began).Seconds(), nil
}
