package store

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// Severity of a problem.
type Severity uint8

const (
	// Note: nothing is wrong, but space is wasted or a crash has left its trace.
	Note Severity = iota
	// Torn: a block of a suspect replica does not match its sum; resolving the replica mends it (R6).
	Torn
	// Damage: a replica that is believed is not what it should be.
	Damage
)

func (v Severity) String() string {
	switch v {
	case Note:
		return "note"
	case Torn:
		return "torn"
	}
	return "damage"
}

// NoBlock is the Block of a problem that is not one block's.
const NoBlock = ^uint32(0)

// Problem is one finding of Check.
type Problem struct {
	Severity Severity
	ID       chunk.ID // of file 0: no chunk's
	Layer    uint32   // 0: the whole replica
	Block    uint32   // or NoBlock
	What     string
}

func (p Problem) String() string {
	where := "store"
	if p.ID.File != 0 {
		where = "chunk " + p.ID.String()
	}
	if p.Layer != 0 {
		where += fmt.Sprintf(", layer %d", p.Layer)
	}
	if p.Block != NoBlock {
		where += fmt.Sprintf(", block %d", p.Block)
	}
	return p.Severity.String() + ": " + where + ": " + p.What
}

// Summary is what Check went through.
type Summary struct {
	Replicas, Layers, Suspects int
	Blocks, Zeros, Lost        uint64 // with data, verified; zeroed; of which no good copy was left
	Damaged                    int    // problems of severity Damage, of replicas that are not marked
	Marked                     int    // replicas in sync that are marked as damaged
	Aside                      int    // files set aside for inspection
}

// Check verifies a whole store that is not in use: every replica's files, headers, tables and blocks, and that there are no files
// besides. It changes nothing. report is called for each problem; the error says why the check could not be finished.
func Check(fsys disk.FS, dir string, report func(Problem)) (Summary, error) {
	was, err := readState(fsys, dir)
	if err != nil {
		return Summary{}, fmt.Errorf("check %s: %w", dir, err)
	}
	c := &checker{fs: fsys, dir: dir, was: was, report: report, files: map[string]bool{}}
	for _, id := range slices.SortedFunc(maps.Keys(was.replicas), compareIDs) {
		c.replica(id, was.replicas[id])
	}
	if was.journal != nil {
		if info := was.journal.inspect(fsys); info.Damage != nil {
			c.problem(Damage, chunk.ID{}, 0, NoBlock, info.Damage.Error())
		} else if info.Records > 0 {
			c.problem(Note, chunk.ID{}, 0, NoBlock, fmt.Sprintf("the next start applies %d records of the write journal in %s", info.Records, info.Dir))
		}
	}
	if err := c.strays(chunksName + "/"); err != nil {
		return c.sum, fmt.Errorf("check %s: %w", dir, err)
	}
	if err := c.aside(); err != nil {
		return c.sum, fmt.Errorf("check %s: %w", dir, err)
	}
	return c.sum, nil
}

type checker struct {
	fs     disk.FS
	dir    string
	was    *saved
	report func(Problem)
	sum    Summary
	files  map[string]bool // that belong to replicas

	problems int // reported
}

func (c *checker) problem(v Severity, id chunk.ID, layer, block uint32, what string) {
	c.problems++
	if v == Damage {
		c.sum.Damaged++
	}
	c.report(Problem{Severity: v, ID: id, Layer: layer, Block: block, What: what})
}

func (c *checker) replica(id chunk.ID, rec record) {
	c.sum.Replicas++
	for _, num := range rec.fileNums() {
		c.files[layerName(id, num)] = true
	}
	if rec.state == removing {
		c.problem(Note, id, 0, NoBlock, "is being deleted")
		return
	}
	if _, ok := c.was.epochs[id.File]; !ok && rec.state != Stale {
		c.problem(Damage, id, 0, NoBlock, "its file has no fence")
	}
	bad := Damage
	suspicion, open := c.was.activity[id]
	switch {
	case suspicion != Sound, open && !c.was.clean:
		c.sum.Suspects++
		bad = Torn
	case rec.damaged || rec.state == Stale:
		bad = Note
	}
	before := c.problems
	for _, l := range rec.layers {
		c.sum.Layers++
		c.layer(chunk.Header{ID: id, Layer: rec.file(l), Blocks: rec.blocks}, bad)
	}
	if rec.damaged && rec.state != Stale && c.problems > before { // else what was bad has been written anew
		c.sum.Marked++
		c.problem(Note, id, 0, NoBlock, "is marked as damaged")
	}
}

// layer reports what is wrong with a file: bad says how severe that is of a block; of the whole file, it is damage unless that is known.
func (c *checker) layer(h chunk.Header, bad Severity) {
	whole := Damage
	if c.was.replicas[h.ID].damaged {
		whole = Note
	}
	f, err := c.fs.Open(c.dir + "/" + layerName(h.ID, h.Layer))
	if err != nil {
		c.problem(whole, h.ID, h.Layer, NoBlock, err.Error())
		return
	}
	defer f.Close()
	h, err = checkHeader(f, h)
	if err != nil {
		c.problem(whole, h.ID, h.Layer, NoBlock, err.Error())
		return
	}
	codes, err := readTable(f, h)
	if err != nil {
		c.problem(whole, h.ID, h.Layer, NoBlock, err.Error())
		return
	}
	block := make([]byte, chunk.BlockSize)
	for i, code := range codes {
		switch {
		case code == chunk.Zeros:
			c.sum.Zeros++
		case code == chunk.Lost:
			c.sum.Lost++
			c.problem(Note, h.ID, h.Layer, uint32(i), "is lost: no good copy of it was left")
		case chunk.HasData(code):
			c.sum.Blocks++
			if _, err := f.ReadAt(block, chunk.DataOffset(h.Blocks, uint32(i))); err != nil {
				c.problem(whole, h.ID, h.Layer, uint32(i), err.Error())
			} else if !chunk.Verify(h.ID, uint32(i), code, block) {
				c.problem(bad, h.ID, h.Layer, uint32(i), fmt.Sprintf("data do not match their sum %08x", code))
			}
		}
	}
}

// aside tells of each file that was set aside what is wrong with it.
func (c *checker) aside() error {
	all, err := asides(c.fs, c.dir)
	for _, a := range all {
		c.sum.Aside++
		c.problem(Note, a.ID, a.Layer, NoBlock, fmt.Sprintf("set aside at %s: %s", a.When.Format(time.RFC3339), inspect(c.fs, c.dir, a)))
	}
	return err
}

// maxNamed is the most bad blocks of a file that are named.
const maxNamed = 16

// inspect says in one line what is wrong with a file that was set aside.
func inspect(fsys disk.FS, dir string, a Aside) string {
	f, err := fsys.Open(dir + "/" + a.Name)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	h, codes, err := readLayer(f)
	if err != nil {
		return err.Error()
	}
	bad, total := badBlocks(f, h, codes), len(codes)
	if len(bad) == 0 {
		return "all blocks match their sums"
	}
	named := bad[:min(len(bad), maxNamed)]
	return fmt.Sprintf("%d of %d blocks do not match their sums: %v", len(bad), total, named)
}

// readLayer reads the header and the table of any file.
func readLayer(f disk.File) (h chunk.Header, codes []uint32, err error) {
	p := make([]byte, chunk.HeaderSize)
	if _, err = f.ReadAt(p, 0); err != nil {
		return h, nil, fmt.Errorf("header: %w", err)
	}
	if h, err = chunk.DecodeHeader(p); err != nil {
		return h, nil, err
	}
	codes, err = readTable(f, h)
	return h, codes, err
}

// badBlocks lists those that do not match, or cannot be read.
func badBlocks(f disk.File, h chunk.Header, codes []uint32) (bad []uint32) {
	block := make([]byte, chunk.BlockSize)
	for i, code := range codes {
		if !chunk.HasData(code) {
			continue
		}
		if _, err := f.ReadAt(block, chunk.DataOffset(h.Blocks, uint32(i))); err != nil || !chunk.Verify(h.ID, uint32(i), code, block) {
			bad = append(bad, uint32(i))
		}
	}
	return bad
}

func readTable(f disk.File, h chunk.Header) ([]uint32, error) {
	raw := make([]byte, h.Blocks*chunk.CodeSize)
	if _, err := f.ReadAt(raw, chunk.HeaderSize); err != nil {
		return nil, fmt.Errorf("table: %w", err)
	}
	codes := make([]uint32, h.Blocks)
	h.DecodeCodes(codes, raw)
	return codes, nil
}

// strays reports files that belong to no replica: a crash between making a file and recording it leaves one.
func (c *checker) strays(folder string) error {
	names, err := c.fs.List(c.dir + "/" + strings.TrimSuffix(folder, "/"))
	if err != nil {
		return err
	}
	for _, n := range names {
		switch name := path.Clean(folder + n); {
		case strings.HasSuffix(n, "/"):
			if err := c.strays(folder + n); err != nil {
				return err
			}
		case !c.files[name]:
			c.problem(Note, chunk.ID{}, 0, NoBlock, name+" belongs to no replica")
		}
	}
	return nil
}
