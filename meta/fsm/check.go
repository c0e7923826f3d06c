package fsm

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// Check reads everything and returns the first contradiction: the buckets that are derived must say what the chunk table says.
func (v *View) Check() error {
	want := &derived{counts: map[uint64]Counts{}, replicas: map[string]*Block{}, watch: map[string]bool{}}
	c := v.chunks.Cursor()
	for k, val := c.First(); k != nil; k, val = c.Next() {
		var rec Chunk
		if err := decodeChunk(val, &rec); err != nil {
			return fmt.Errorf("chunk %x: %w", k, err)
		}
		if err := want.chunk(v, chunkKeyOf(k), &rec); err != nil {
			return err
		}
	}
	for _, check := range []func(*derived) error{v.checkReplicas, v.checkWatch, v.checkCounts} {
		if err := check(want); err != nil {
			return err
		}
	}
	for _, check := range []func() error{v.checkTargets, v.checkSnapshots, v.checkTree, v.checkIncoming, v.checkExports, v.checkQuotas} {
		if err := check(); err != nil {
			return err
		}
	}
	return v.err
}

// derived is what follows from the chunk table.
type derived struct {
	counts   map[uint64]Counts
	replicas map[string]*Block
	watch    map[string]bool
}

func (d *derived) chunk(v *View, k ChunkKey, c *Chunk) error {
	n := v.node(k.File)
	if n == nil || n.Directory {
		return fmt.Errorf("chunk %d.%d is of no file: %w", k.File, k.Index, ErrCorrupt)
	}
	if len(c.Insync) == 0 || c.Version == 0 {
		return fmt.Errorf("chunk %d.%d has no replica in sync, or no version: %w", k.File, k.Index, ErrCorrupt)
	}
	total := d.counts[k.File]
	is, watch := weigh(c, v.policy(k.File, n))
	total.add(is)
	d.counts[k.File] = total
	if watch {
		d.watch[string(k.watchBytes(len(c.Insync)))] = true
	}
	for _, s := range c.Members() {
		key := string(blockKey(s, k.File, k.Index/BlockSpan))
		if d.replicas[key] == nil {
			d.replicas[key] = &Block{}
		}
		if d.replicas[key].Has(k.Index) {
			return fmt.Errorf("chunk %d.%d: server %d is a member twice: %w", k.File, k.Index, s, ErrCorrupt)
		}
		d.replicas[key].Set(k.Index)
	}
	return nil
}

func (v *View) checkReplicas(d *derived) error {
	want := map[string][]byte{}
	for k, b := range d.replicas {
		want[k] = b.encode()
	}
	return compareBucket("replicas", v.replicas, want)
}

func (v *View) checkWatch(d *derived) error {
	want := map[string][]byte{}
	for k := range d.watch {
		want[k] = nil
	}
	return compareBucket("watch", v.watch, want)
}

func (v *View) checkCounts(d *derived) error {
	want := map[string][]byte{}
	for f, n := range d.counts {
		want[string(nodeKey(f))] = encodeCounts(n)
	}
	return compareBucket("counts", v.counts, want)
}

func compareBucket(name string, b *bolt.Bucket, want map[string][]byte) error {
	have := 0
	err := b.ForEach(func(k, v []byte) error {
		have++
		w, ok := want[string(k)]
		if !ok || !bytes.Equal(v, w) {
			return fmt.Errorf("%s %x is %x, should be %x: %w", name, k, v, w, ErrCorrupt)
		}
		return nil
	})
	if err == nil && have != len(want) {
		err = fmt.Errorf("%s has %d entries, should have %d: %w", name, have, len(want), ErrCorrupt)
	}
	return err
}

// Dump returns all contents by bucket and key, for tests and tools.
func (v *View) Dump() map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, b := range []struct {
		name   []byte
		bucket *bolt.Bucket
	}{
		{clusterBucket, v.cluster}, {configBucket, v.config}, {serversBucket, v.servers}, {membersBucket, v.members}, {nodesBucket, v.nodes},
		{namesBucket, v.names}, {chunksBucket, v.chunks}, {countsBucket, v.counts}, {replicasBucket, v.replicas}, {garbageBucket, v.garbage},
		{watchBucket, v.watch}, {targetsBucket, v.targets}, {accountsBucket, v.accounts}, {reservationsBucket, v.reservations},
		{snapshotsBucket, v.snapshots}, {layersBucket, v.layers}, {overBucket, v.over}, {formersBucket, v.formers},
		{exportsBucket, v.exports},
	} {
		m := map[string]string{}
		_ = b.bucket.ForEach(func(k, v []byte) error {
			m[string(k)] = string(v)
			return nil
		})
		out[string(b.name)] = m
	}
	return out
}

// Difference names the first difference between two dumps, empty if there is none.
func Difference(a, b map[string]map[string]string) string {
	for _, name := range slices.Sorted(maps.Keys(a)) {
		for _, k := range slices.Sorted(maps.Keys(a[name])) {
			if w, ok := b[name][k]; !ok || w != a[name][k] {
				return fmt.Sprintf("%s %x: %x and %x", name, k, a[name][k], w)
			}
		}
		if len(a[name]) != len(b[name]) {
			return fmt.Sprintf("%s: %d and %d entries", name, len(a[name]), len(b[name]))
		}
	}
	return ""
}
