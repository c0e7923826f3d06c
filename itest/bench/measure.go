package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"pstorage/cli/print"
	"pstorage/cli/size"
	"pstorage/itest/nbd"
)

// sample is one measurement.
type sample struct {
	perSecond float64
	p50, p99  float64 // microseconds
	cpu       float64 // seconds of the servers' processor time per 100,000 requests
	client    float64 // cores that the load generator used
	rss       uint64
}

// measure runs each workload on each contender, round after round.
func measure(c config, contenders []*contender, run func(*contender, workload) (sample, error)) (map[string]map[string]sample, error) {
	samples := map[string]map[string][]sample{}
	for round := range c.rounds {
		for _, w := range workloads {
			if !c.only.MatchString(w.name) {
				continue
			}
			for _, who := range contenders {
				s, err := run(who, w)
				if err != nil {
					return nil, fmt.Errorf("%s on %s: %w", w.name, who.name, err)
				}
				fmt.Fprintf(os.Stderr, "round %d  %-20s %-12s %s\n", round+1, w.name, who.name, s.line(w))
				if samples[w.name] == nil {
					samples[w.name] = map[string][]sample{}
				}
				samples[w.name][who.name] = append(samples[w.name][who.name], s)
			}
		}
	}
	medians := map[string]map[string]sample{}
	for workload, all := range samples {
		medians[workload] = map[string]sample{}
		for who, list := range all {
			medians[workload][who] = median(list)
		}
	}
	return medians, nil
}

func (s sample) line(w workload) string {
	return fmt.Sprintf("%8.0f/s %6.0f MB/s  p50 %5.0f us  p99 %6.0f us  %.2f CPU-s/100k", s.perSecond, s.megabytes(w), s.p50, s.p99, s.cpu)
}

func (s sample) megabytes(w workload) float64 { return s.perSecond * float64(w.pattern.Size) / 1e6 }

// median takes each figure's own.
func median(list []sample) sample {
	middle := func(figure func(sample) float64) float64 {
		values := make([]float64, 0, len(list))
		for _, s := range list {
			values = append(values, figure(s))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return sample{
		perSecond: middle(func(s sample) float64 { return s.perSecond }),
		p50:       middle(func(s sample) float64 { return s.p50 }),
		p99:       middle(func(s sample) float64 { return s.p99 }),
		cpu:       middle(func(s sample) float64 { return s.cpu }),
		client:    middle(func(s sample) float64 { return s.client }),
		rss:       uint64(middle(func(s sample) float64 { return float64(s.rss) })),
	}
}

// load measures with the generator that batches its own system calls.
func load(c config) func(*contender, workload) (sample, error) {
	return func(who *contender, w workload) (s sample, err error) {
		before, err := who.usage()
		if err != nil {
			return s, err
		}
		r, err := nbd.Load(who.uri, w.pattern, c.time)
		if err != nil {
			return s, err
		}
		after, err := who.usage()
		if err != nil {
			return s, err
		}
		return sample{
			perSecond: r.PerSecond(), p50: float64(r.Percentile(.5)), p99: float64(r.Percentile(.99)),
			cpu:    (after.CPU - before.CPU).Seconds() * 1e5 / float64(max(r.Ops, 1)),
			client: r.CPU.Seconds() / r.Took.Seconds(), rss: after.RSS,
		}, nil
	}
}

// table prints medians: one line per workload and contender, with the ratio of the first contender to it, and what was expected
// of the first.
func table(title string, contenders []*contender, medians map[string]map[string]sample, floors map[string]floor) error {
	fmt.Printf("\n%s\n\n", title)
	var rows [][]string
	for _, w := range workloads {
		all, ok := medians[w.name]
		if !ok {
			continue
		}
		ours := all[contenders[0].name]
		for i, who := range contenders {
			s := all[who.name]
			row := []string{w.name, who.name, fmt.Sprintf("%.0f", s.perSecond), fmt.Sprintf("%.0f", s.megabytes(w)), fmt.Sprintf("%.0f", s.p50), fmt.Sprintf("%.0f", s.p99),
				fmt.Sprintf("%.3f", s.cpu), fmt.Sprintf("%.2f", s.client), size.Format(s.rss), "", ""}
			if i == 0 {
				row[10] = verdict(w, ours, all[contenders[min(1, len(contenders)-1)].name], floors[w.name])
			} else {
				row[0], row[9] = "", fmt.Sprintf("%.2fx", ours.perSecond/s.perSecond)
			}
			rows = append(rows, row)
		}
	}
	return print.Table(os.Stdout, []string{"WORKLOAD", "SERVER", ">PER S", ">MB/S", ">P50 us", ">P99 us", ">CPU-S/100K", ">CLIENT", ">RSS", ">RATIO", "FLOOR"}, rows)
}

// verdict compares with what is expected.
func verdict(w workload, s, other sample, f floor) string {
	var parts []string
	check := func(good bool, format string, value any) {
		word := "ok"
		if !good {
			word = "MISSED"
		}
		parts = append(parts, fmt.Sprintf(format, value)+" "+word)
	}
	if f.perSecond > 0 {
		check(s.perSecond >= f.perSecond, "%v/s", f.perSecond)
	}
	if f.micros > 0 {
		check(s.p50 < float64(f.micros), "%d us", f.micros)
	}
	if f.mbPerSec > 0 {
		check(s.megabytes(w) >= f.mbPerSec, "%v MB/s", f.mbPerSec)
	}
	if f.times > 0 {
		check(s.perSecond >= f.times*other.perSecond, "%vx", f.times)
	}
	return strings.Join(parts, ", ")
}

// settle lets the machine come to rest between starting servers and measuring.
func settle() { time.Sleep(500 * time.Millisecond) }
