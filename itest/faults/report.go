package faults

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"pstorage/cli/print"
)

// Stalls are the longest waits for each fault of a kind.
type Stalls struct {
	Kind  Kind
	Waits []Wait // the longest of each fault, sorted by that
}

// Longest of all.
func (s Stalls) Longest() time.Duration { return s.Waits[len(s.Waits)-1].Took }

// Median of them.
func (s Stalls) Median() time.Duration { return s.Waits[len(s.Waits)/2].Took }

// Over tells whether the limit was missed.
func (s Stalls) Over() bool { return s.Kind.Limit > 0 && s.Longest() > s.Kind.Limit }

// Judge asks the probe how long each fault was felt, and sorts that by kind.
func Judge(done []Stroke, p *Probe) (all []Stalls) {
	for _, s := range done {
		i := slices.IndexFunc(all, func(a Stalls) bool { return a.Kind.Name == s.Kind.Name })
		if i < 0 {
			i = len(all)
			all = append(all, Stalls{Kind: s.Kind})
		}
		all[i].Waits = append(all[i].Waits, p.Longest(s.At, s.End))
	}
	for i := range all {
		slices.SortFunc(all[i].Waits, func(a, b Wait) int { return cmp.Compare(a.Took, b.Took) })
	}
	slices.SortFunc(all, func(a, b Stalls) int { return int(b.Longest() - a.Longest()) })
	return all
}

// Table writes the stalls.
func Table(w io.Writer, all []Stalls) error {
	rows := make([][]string, 0, len(all))
	for _, s := range all {
		verdict := ""
		if s.Over() {
			verdict = "over"
		}
		rows = append(rows, []string{s.Kind.Name, strconv.Itoa(len(s.Waits)), seconds(s.Median()), seconds(s.Longest()), seconds(s.Kind.Limit), verdict})
	}
	return print.Table(w, []string{"FAULT", ">COUNT", ">MEDIAN", ">LONGEST", ">LIMIT", " "}, rows)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
