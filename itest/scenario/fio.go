package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// FioResult is what fio measured over all of its jobs.
type FioResult struct {
	Read, Written int64 // bytes
	Longest       time.Duration
	ReadRate      float64 // requests per second
	WriteRate     float64
	Trims         int64
	Median, P99   time.Duration // of the last job that read or wrote
}

// FioVerify writes bytes to a volume with fio, in requests of 512 B to 1 MiB, with trims beside, and reads all of it back against
// checksums. A volume must have at least twice as many bytes.
func FioVerify(ctx context.Context, uri, dir string, bytes int64) (FioResult, error) {
	// Of what randrw does, 70 in 100 are writes, and its size is that of reads and writes.
	mixed := strconv.FormatInt(bytes*10/7&^(1<<20-1), 10)
	return Fio(ctx, dir,
		"--ioengine=nbd", "--uri="+uri, "--iodepth=16", "--randrepeat=0", "--verify_fatal=1", "--verify_state_save=0", "--group_reporting",
		"--name=mixed", "--rw=randrw", "--rwmixread=30", "--bsrange=512-1M", "--size="+mixed, "--verify=crc32c", "--verify_backlog=256",
		"--name=trims", "--rw=trimwrite", "--bs=64k", "--offset="+mixed, "--size="+strconv.FormatInt(bytes/4, 10), "--verify=crc32c",
	)
}

// Fio runs fio with the arguments and returns what it measured.
func Fio(ctx context.Context, dir string, args ...string) (result FioResult, err error) {
	report := filepath.Join(dir, "fio.json")
	defer os.Remove(report)
	args = append([]string{"--output-format=json", "--output=" + report, "--eta=never"}, args...)
	if _, err := run(ctx, "fio", args...); err != nil {
		text, _ := os.ReadFile(report)
		return result, fmt.Errorf("%w\n%s", err, firstLines(string(text)))
	}
	text, err := os.ReadFile(report)
	if err != nil {
		return result, err
	}
	return parseFio(text)
}

// firstLines of fio's report are its complaints, up to where the report itself begins.
func firstLines(text string) string {
	head, _, _ := strings.Cut(text, "{")
	return head
}

type fioDirection struct {
	IOBytes int64   `json:"io_bytes"`
	IOPS    float64 `json:"iops"`
	Total   int64   `json:"total_ios"`
	Lat     struct {
		Max float64 `json:"max"`
	} `json:"lat_ns"`
	Completion struct {
		Percentile map[string]float64 `json:"percentile"`
	} `json:"clat_ns"`
}

func parseFio(text []byte) (result FioResult, err error) {
	var report struct {
		Jobs []struct {
			Error             int
			Read, Write, Trim fioDirection
		}
	}
	// Complaints of jobs come before the report, in the same file.
	if at := strings.IndexByte(string(text), '{'); at > 0 {
		text = text[at:]
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return result, fmt.Errorf("fio's report: %w", err)
	}
	for _, job := range report.Jobs {
		if job.Error != 0 {
			return result, fmt.Errorf("fio: a job failed with error %d", job.Error)
		}
		result.Read += job.Read.IOBytes
		result.Written += job.Write.IOBytes
		result.ReadRate += job.Read.IOPS
		result.WriteRate += job.Write.IOPS
		result.Trims += job.Trim.Total
		for _, direction := range []fioDirection{job.Read, job.Write} {
			if direction.Total > 0 {
				result.Median = time.Duration(direction.Completion.Percentile["50.000000"])
				result.P99 = time.Duration(direction.Completion.Percentile["99.000000"])
			}
		}
		result.Longest = max(result.Longest, time.Duration(max(job.Read.Lat.Max, job.Write.Lat.Max, job.Trim.Lat.Max)))
	}
	return result, nil
}

// FioUntil writes to a volume with fio, in requests of 4 to 256 KiB, 16 at a time, with flushes among them, and reads all of it back
// against checksums; again and again until stop is closed.
func FioUntil(ctx context.Context, uri, dir string, bytes int64, stop <-chan struct{}) (total FioResult, rounds int, err error) {
	mixed := strconv.FormatInt(bytes*10/7&^(1<<20-1), 10)
	for {
		select {
		case <-stop:
			return total, rounds, nil
		default:
		}
		one, err := Fio(ctx, dir, "--ioengine=nbd", "--uri="+uri, "--iodepth=16", "--randrepeat=0", "--verify_fatal=1", "--verify_state_save=0",
			"--name=mixed", "--rw=randrw", "--rwmixread=30", "--bsrange=4k-256k", "--size="+mixed, "--fsync=32", "--verify=crc32c", "--verify_backlog=256")
		if err != nil {
			return total, rounds, fmt.Errorf("round %d: %w", rounds+1, err)
		}
		rounds++
		total.Read, total.Written = total.Read+one.Read, total.Written+one.Written
		total.Longest = max(total.Longest, one.Longest)
	}
}
