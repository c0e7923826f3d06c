package fsm

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/rules"
)

// txn is a transaction over the buckets. err keeps the first failure of the database or corrupt record found; it ends the whole
// transaction, so what is read or written after it does not matter, and callers go on without looking.
type txn struct {
	err  error
	left rules.Set // out, by tests

	cluster, config, servers, members, nodes, names, chunks, counts, replicas, garbage, watch *bolt.Bucket
	targets, accounts, reservations, snapshots, layers, over, formers, exports                *bolt.Bucket

	policies map[uint64]Policy  // of files, as far as known
	changed  map[uint64]Counts  // not yet stored: a batch changes the same file's again and again
	blocks   map[blockID]*Block // read, and perhaps changed and not yet stored
}

func open(tx *bolt.Tx) *txn {
	return &txn{
		cluster: tx.Bucket(clusterBucket), config: tx.Bucket(configBucket), servers: tx.Bucket(serversBucket),
		members: tx.Bucket(membersBucket), nodes: tx.Bucket(nodesBucket), names: tx.Bucket(namesBucket),
		chunks: tx.Bucket(chunksBucket), counts: tx.Bucket(countsBucket), replicas: tx.Bucket(replicasBucket),
		garbage: tx.Bucket(garbageBucket), watch: tx.Bucket(watchBucket),
		targets: tx.Bucket(targetsBucket), accounts: tx.Bucket(accountsBucket), reservations: tx.Bucket(reservationsBucket),
		snapshots: tx.Bucket(snapshotsBucket), layers: tx.Bucket(layersBucket), over: tx.Bucket(overBucket), formers: tx.Bucket(formersBucket),
		exports:  tx.Bucket(exportsBucket),
		policies: map[uint64]Policy{}, changed: map[uint64]Counts{}, blocks: map[blockID]*Block{},
	}
}

func (tx *txn) without(left rules.Set) *txn {
	tx.left = left
	return tx
}

func (tx *txn) fail(err error) {
	if tx.err == nil {
		tx.err = err
	}
}

func (tx *txn) put(b *bolt.Bucket, key, value []byte) {
	if err := b.Put(key, value); err != nil {
		tx.fail(fmt.Errorf("put %x: %w", key, err))
	}
}

func (tx *txn) delete(b *bolt.Bucket, key []byte) {
	if err := b.Delete(key); err != nil {
		tx.fail(fmt.Errorf("delete %x: %w", key, err))
	}
}

func (tx *txn) putMessage(b *bolt.Bucket, key []byte, m proto.Message) {
	v, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		tx.fail(fmt.Errorf("record %x: %w", key, err))
		return
	}
	tx.put(b, key, v)
}

// getMessage tells whether the record exists; then m has it.
func (tx *txn) getMessage(b *bolt.Bucket, key []byte, m proto.Message) bool {
	v := b.Get(key)
	if v == nil {
		return false
	}
	if err := proto.Unmarshal(v, m); err != nil {
		tx.fail(fmt.Errorf("record %x: %w: %v", key, ErrCorrupt, err))
		return false
	}
	return true
}

// number reads a u64; records of it are made by this package alone.
func number(v []byte) uint64 {
	if len(v) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

// count raises a counter and returns it.
func (tx *txn) count(key []byte) uint64 {
	n := number(tx.cluster.Get(key)) + 1
	tx.put(tx.cluster, key, nodeKey(n))
	return n
}

func (tx *txn) putNode(id uint64, n *fsmpb.Node) { tx.putMessage(tx.nodes, nodeKey(id), n) }

// node returns a file or directory, nil if there is none.
func (tx *txn) node(id uint64) *fsmpb.Node {
	n := &fsmpb.Node{}
	if !tx.getMessage(tx.nodes, nodeKey(id), n) {
		return nil
	}
	return n
}

func (tx *txn) chunk(k ChunkKey, c *Chunk) bool {
	v := tx.chunks.Get(k.bytes())
	if v == nil {
		return false
	}
	if err := decodeChunk(v, c); err != nil {
		tx.fail(fmt.Errorf("chunk %d.%d: %w", k.File, k.Index, err))
		return false
	}
	return true
}

func (tx *txn) fileCounts(file uint64) Counts {
	if n, ok := tx.changed[file]; ok {
		return n
	}
	v := tx.counts.Get(nodeKey(file))
	if v == nil {
		return Counts{}
	}
	n, err := decodeCounts(v)
	if err != nil {
		tx.fail(fmt.Errorf("file %d: %w", file, err))
	}
	return n
}

// putChunk stores a record in place of the old one (nil: none) and keeps replicas, watch and counts in step with it.
func (tx *txn) putChunk(k ChunkKey, old, c *Chunk, p Policy) {
	n := tx.fileCounts(k.File)
	if old != nil {
		was, watched := weigh(old, p)
		n.subtract(was)
		if watched {
			tx.delete(tx.watch, k.watchBytes(len(old.Insync)))
		}
		for _, s := range old.Members() {
			if !c.Member(s) {
				tx.clearBit(tx.replicas, s, k)
			}
		}
	}
	is, watched := weigh(c, p)
	n.add(is)
	if watched {
		tx.put(tx.watch, k.watchBytes(len(c.Insync)), nil)
	}
	for _, s := range c.Members() {
		if old == nil || !old.Member(s) {
			tx.setBit(tx.replicas, s, k)
		}
	}
	tx.put(tx.chunks, k.bytes(), encodeChunk(c))
	tx.changed[k.File] = n
}

// storeCounts ends a batch.
func (tx *txn) storeCounts() {
	for file, n := range tx.changed {
		if n.Chunks == 0 {
			tx.delete(tx.counts, nodeKey(file))
			continue
		}
		tx.put(tx.counts, nodeKey(file), encodeCounts(n))
	}
}
