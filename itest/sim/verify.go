package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"pstorage/blockstore"
	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/meta"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

const (
	healthTime = 5 * time.Minute // for the cluster to be whole again
	sweepTime  = 2 * time.Minute // for what belongs to nothing to be gone
)

// verify looks at what is left once all faults are gone.
func (s *Sim) verify() error {
	admin, err := s.metaClient("admin")
	if err != nil {
		return err
	}
	defer admin.Close()
	ctx := context.Background()
	if s.options.Abandoned {
		if err := s.awaitTakeOvers(ctx, admin); err != nil {
			return err
		}
	}
	for _, v := range s.allVolumes() { // what a client that died has left is its successor's to compare (R5)
		if err := s.readAll(v, "", 0); err != nil {
			return err
		}
	}
	s.look()
	if lost := s.losses.hopeless(); len(lost) > 0 {
		s.trace.logf("sim", "of chunks %v no good replica was left", lost)
		s.void = true
		return nil
	}
	if err := s.await(healthTime, "the cluster is whole", func() string { return s.unhealthy(ctx, admin) }); err != nil {
		return err
	}
	for i, c := range s.servers {
		for _, v := range s.allVolumes() {
			if err := s.readAll(v, c.name, i); err != nil {
				return err
			}
		}
	}
	s.readSnapshots()
	if err := s.await(healthTime, "the cluster is whole again", func() string { return s.unhealthy(ctx, admin) }); err != nil {
		return err
	}
	if s.options.Brief {
		s.compareReplicas()
		return nil
	}
	if err := s.await(sweepTime, "servers hold what they should and nothing else", s.leftovers); err != nil {
		return err
	}
	s.compareReplicas()
	s.checkState()
	for _, v := range slices.Backward(s.allVolumes()) { // clones go before what they are over
		if _, err := admin.Remove(ctx, &metapb.RemoveRequest{Path: v.path}); err != nil {
			return err
		}
	}
	return s.await(sweepTime, "what was deleted is gone", s.leftovers)
}

// awaitTakeOvers waits until recovery has taken over what the clients have left, and made the cluster whole, without any client.
func (s *Sim) awaitTakeOvers(ctx context.Context, admin metapb.MetaClient) error {
	hopeless := func() bool { s.look(); return len(s.losses.hopeless()) > 0 }
	if err := s.await(healthTime, "nothing is unclean", func() string {
		if hopeless() {
			return ""
		}
		return s.unclean()
	}); err != nil || hopeless() {
		return err
	}
	if err := s.await(healthTime, "the cluster is whole without clients", func() string { return s.unhealthy(ctx, admin) }); err != nil {
		return err
	}
	if err := s.await(sweepTime, "servers hold what they should, without clients", s.leftovers); err != nil {
		return err
	}
	s.compareReplicas()
	return nil
}

// unclean names a file that was left unclean.
func (s *Sim) unclean() (found string) {
	s.view(func(v *fsm.View) {
		v.Files(func(id uint64, n *fsmpb.Node) bool {
			if f, err := v.File(id); err == nil && !n.Directory && !n.Clean && f.Counts.Chunks > 0 {
				found = fmt.Sprintf("%s, epoch %d, settled %d, holder %x\n%s", f.Path, n.Epoch, n.SettledEpoch, n.Holder.GetId(), s.inventory())
			}
			return true
		})
	})
	return found
}

// unhealthy says what the cluster lacks; empty: nothing.
func (s *Sim) unhealthy(ctx context.Context, admin metapb.MetaClient) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	st, err := admin.Status(ctx, &metapb.StatusRequest{})
	if err != nil {
		return err.Error()
	}
	active := 0
	for _, c := range st.Servers {
		if c.State == metapb.Server_ACTIVE && c.Suspects == 0 {
			active++
		}
	}
	if active != chunkServers || st.Healthy != st.Chunks {
		return fmt.Sprintf("%d chunk servers without suspects; of %d chunks %d healthy, %d degraded, %d unwritable, %d lost, %d syncing\n%s", active,
			st.Chunks, st.Healthy, st.Degraded, st.Unwritable, st.Lost, st.Syncing, s.inventory())
	}
	return ""
}

// readAll reads every block in use, as a last client does on a chunk server's machine: that one's replicas are read first. Its reads are part
// of the history.
func (s *Sim) readAll(v *volume, machine string, number int) error {
	host := s.newClientHost(90 + number)
	host.near = machine
	p, err := host.begin()
	if err != nil {
		return err
	}
	defer p.end()
	ctx, cancel := context.WithTimeout(context.Background(), healthTime)
	defer cancel()
	dev, err := p.store.Open(ctx, v.path, blockstore.OpenOptions{})
	if err != nil {
		return fmt.Errorf("the last open: %w", err)
	}
	ended := make(chan struct{})
	hung := time.AfterFunc(healthTime, func() { // which fails what waits
		p.end()
		close(ended)
	})
	(&user{p: p, v: v, dev: dev}).lastRequests(s.options.Seed)
	if !hung.Stop() { // it waited for a replica that will not come back
		<-ended
		if len(s.losses.hopeless()) > 0 {
			return nil
		}
		return fmt.Errorf("the last client waited for more than %v", healthTime)
	}
	if err := dev.Close(); err != nil {
		return fmt.Errorf("the last close: %w", err)
	}
	return nil
}

// lastRequests reads every block in use, then writes and flushes: unless the run has failed, since what is damaged may wait for ever.
func (u *user) lastRequests(seed uint64) {
	for c := range u.dev.Size() / chunkSize {
		for _, b := range hot {
			u.read(c*chunkSectors+b*blockSectors, blockSectors)
		}
	}
	if u.p.host.s.hasFound() {
		return
	}
	u.write(rand.New(rand.NewPCG(seed, 3)), false)
	u.flush()
}

// view reads the state of the running metadata server that has applied most, if there is one.
func (s *Sim) view(read func(*fsm.View)) {
	var best *meta.Server
	most := uint64(0)
	for _, m := range s.mds {
		server := m.running()
		if server == nil {
			continue
		}
		_ = server.View(func(v *fsm.View) error {
			if a := v.Applied(); best == nil || a > most {
				best, most = server, a
			}
			return nil
		})
	}
	if best == nil {
		return
	}
	if err := best.View(func(v *fsm.View) error { read(v); return nil }); err != nil {
		s.wrong("the newest state cannot be read: %v", err)
	}
}

// records lists all chunks.
func (s *Sim) records() map[fsm.ChunkKey]fsm.Chunk {
	out := map[fsm.ChunkKey]fsm.Chunk{}
	s.view(func(v *fsm.View) {
		v.Files(func(id uint64, n *fsmpb.Node) bool {
			v.Chunks(id, 0, func(index uint32, c *fsm.Chunk) bool {
				out[fsm.ChunkKey{File: id, Index: index}] = fsm.Chunk{Version: c.Version, Insync: slices.Clone(c.Insync), Syncing: slices.Clone(c.Syncing),
					Former: slices.Clone(c.Former)}
				return true
			})
			return true
		})
	})
	return out
}

// leftovers says what a server has that it should not have, or lacks.
func (s *Sim) leftovers() (found string) {
	records := s.records()
	has := map[fsm.ChunkKey][]string{}
	for _, c := range s.servers {
		c.store.Inventory(func(r store.Replica) bool {
			k := fsm.ChunkKey{File: r.ID.File, Index: r.ID.Index}
			rec := records[k]
			if r.State != store.InSync || r.Suspect != store.Sound || !slices.Contains(rec.Insync, c.id) || r.Version != rec.Version {
				found = fmt.Sprintf("%s (%d) has %+v where the record is %+v", c.name, c.id, r, rec)
			}
			has[k] = append(has[k], fmt.Sprintf("%d (version %d, state %d)", c.id, r.Version, r.State))
			return true
		})
	}
	for k, rec := range records {
		if len(has[k]) != len(rec.Insync) || len(rec.Syncing) > 0 {
			found = fmt.Sprintf("chunk %v has replicas on %v where the record is %+v", k, has[k], rec)
		}
	}
	return found
}

// inventory describes what the metadata servers know of each chunk, and what the chunk servers have.
func (s *Sim) inventory() string {
	var out strings.Builder
	for k, rec := range s.records() {
		fmt.Fprintf(&out, "    chunk %v version %d in sync on %v, syncing on %v;", k, rec.Version, rec.Insync, rec.Syncing)
		for _, c := range s.servers {
			if c.store == nil {
				continue
			}
			c.store.Inventory(func(r store.Replica) bool {
				if r.ID.File == k.File && r.ID.Index == k.Index {
					fmt.Fprintf(&out, " %d: version %d state %d suspicion %d;", c.id, r.Version, r.State, r.Suspect)
				}
				return true
			})
		}
		out.WriteByte('\n')
	}
	return out.String()
}

// compareReplicas reads every chunk from the disks of all its in-sync replicas.
func (s *Sim) compareReplicas() {
	for k, rec := range s.records() {
		var first *contents
		for _, c := range s.servers {
			if !slices.Contains(rec.Insync, c.id) {
				continue
			}
			got, err := c.contents(k, rec.Version)
			if err == nil && first != nil {
				err = first.differs(got)
			}
			if err != nil {
				s.wrong("chunk %v on %s: %v", k, c.name, err)
			}
			if first == nil {
				first = got
			}
		}
		s.compareLayers(k, rec)
	}
}

// contents is a replica's blocks.
type contents struct {
	codes []uint32
	data  []byte
}

func chunkID(k fsm.ChunkKey) chunk.ID { return chunk.ID{File: k.File, Index: k.Index} }

func (c *chunkServer) contents(k fsm.ChunkKey, version uint64) (*contents, error) {
	id := chunkID(k)
	out := &contents{codes: make([]uint32, chunkSize/block.Size)}
	a := store.Access{Version: version, Layer: 1 << 30, Peer: true}
	var err error
	if out.data, err = c.store.Read(id, a, 0, chunkSize, out.codes, nil, false); err != nil {
		return out, err
	}
	rest := out.data
	for i, code := range out.codes {
		if !chunk.HasData(code) {
			continue
		}
		if sum := chunk.BlockSum(id, uint32(i), rest[:block.Size]); sum != code {
			return out, fmt.Errorf("block %d does not match its sum", i)
		}
		rest = rest[block.Size:]
	}
	return out, nil
}

func (c *contents) differs(o *contents) error {
	for i := range c.codes {
		a, b := c.codes[i], o.codes[i]
		if a != b {
			return fmt.Errorf("block %d differs from another replica's", i)
		}
	}
	return nil
}

// checkState checks every metadata server's state.
func (s *Sim) checkState() {
	for _, m := range s.mds {
		if err := m.running().View(func(v *fsm.View) error { return v.Check() }); err != nil {
			s.wrong("%s: %v", m.name, err)
		}
	}
}

// failed is called for a request that failed for another reason than that its process lost the volume.
func (s *Sim) failed(who, format string, args ...any) {
	err := fmt.Errorf(format, args...)
	s.trace.logf(who, "%v", err)
	if errors.Is(err, block.ErrCorrupt) || !s.diskFaults.Load() {
		s.wrong("%s: %v", who, err)
	}
}
