package itest

import (
	"bytes"
	"encoding/json"
	"testing"

	"pstorage/itest/cluster"
	"pstorage/itest/nbd"
)

// With real processes: 8 MiB written, of which 2 are written again and 1 trimmed.
func TestUsageOfSnapshotsIsExact(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
	client := connect(t, c.NBD("v"))
	defer client.Close()
	pass(t, client.Write(bytes.Repeat([]byte{1}, 8*mib), 0))
	command(t, c, "snapshot", "create", "v", "--name", "one")
	pass(t, client.Write(bytes.Repeat([]byte{2}, 2*mib), mib))
	pass(t, client.Do(&nbd.Op{Command: nbd.CmdTrim, Offset: 5 * mib, Length: mib}))
	command(t, c, "snapshot", "create", "v", "--name", "two")
	var all []struct {
		Name                 string
		Data, Written, Space int64
	}
	if err := json.Unmarshal([]byte(command(t, c, "snapshot", "usage", "v", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].Data != 8*mib || all[0].Written != 8*mib || all[0].Space != 24*mib || all[1].Data != 7*mib || all[1].Written != 2*mib || all[1].Space != 6*mib {
		t.Errorf("%+v", all)
	}
}
