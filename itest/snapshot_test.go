package itest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
)

// shot is what list says of a snapshot.
type shot struct {
	UUID, Volume, Name string
	Parent             string `json:"parent_uuid"`
	Current, Protected bool
}

func shotsOf(t *testing.T, c *cluster.Cluster, volume string) (out []shot) {
	t.Helper()
	if err := json.Unmarshal([]byte(command(t, c, "snapshot", "list", volume, "--json")), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// With real processes: a volume in use, under load, and one that nobody has open; the metadata server ends in between.
func TestSnapshotsAreTakenWhileVolumesAreUsed(t *testing.T) {
	const rounds = 5
	c := newCluster(t, cluster.Options{})
	command(t, c, "create", "used", "-s", "64M", "--chunk-size", "1M")
	command(t, c, "create", "idle", "-s", "64M")
	model := check.New(64*mib, 11)
	client := connect(t, c.NBD("used"))
	defer client.Close()
	whileChanging(t, model, client, func() {
		for i := range rounds {
			out := command(t, c, "snapshot", "create", "used", "idle", "--name", fmt.Sprint("s", i))
			if n := strings.Count(out, "created "); n != 2 {
				t.Errorf("round %d: %s", i, out)
			}
		}
	})
	for _, volume := range []string{"used", "idle"} {
		all := shotsOf(t, c, volume)
		if len(all) != rounds {
			t.Fatalf("%s has %d snapshots, want %d: %v", volume, len(all), rounds, all)
		}
		for i, s := range all {
			if s.Name != fmt.Sprint("s", i) || s.Volume != volume || s.Current != (i == rounds-1) {
				t.Errorf("snapshot %d: %+v", i, s)
			}
		}
	}
	command(t, c, "snapshot", "protect", "used@s2")
	if got := command(t, c, "snapshot", "info", "used@s2"); !strings.Contains(got, "Protected: yes") {
		t.Error(got)
	}
	command(t, c, "snapshot", "unprotect", "used@s2")
	before := shotsOf(t, c, "used")
	c.MDS[0].Kill()
	pass(t, c.StartMDS(newContext(t), 0))
	if after := shotsOf(t, c, "used"); !slices.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}
	whileChanging(t, model, client, func() { command(t, c, "snapshot", "create", "used") })
}

func TestSnapshotsOfLUNsAreThoseOfTheirVolumes(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	command(t, c, "iscsi", "create", "-n", "shots", "-a", "127.0.0.9")
	command(t, c, "iscsi", "lun-add", "-t", "shots", "-l", "0", "-s", "64M")
	command(t, c, "iscsi", "lun-add", "-t", "shots", "-l", "7", "-s", "64M")
	if out := command(t, c, "iscsi", "snapshot-create", "-t", "shots"); strings.Count(out, " successfully created.\n") != 2 {
		t.Error(out)
	}
	command(t, c, "iscsi", "snapshot-create", "-t", "shots", "-l", "7", "--description", "later")
	all := shotsOf(t, c, "iscsi/shots/7")
	if len(all) != 2 || all[1].Parent != all[0].UUID {
		t.Fatalf("%+v", all)
	}
	list := command(t, c, "iscsi", "snapshot-list", "-t", "shots", "-l", "7")
	if lines := strings.Split(strings.TrimSpace(list), "\n"); len(lines) != 3 || !strings.HasSuffix(lines[2], "* "+all[1].UUID+" "+all[0].UUID) {
		t.Error(list)
	}
	info := command(t, c, "iscsi", "snapshot-info", "-u", all[1].UUID)
	for _, want := range []string{"Target: iqn.2014-04.com.pstorage:shots\n", "LUN: 7\n", "Parent: " + all[0].UUID + "\n", "Description: later\n"} {
		if !strings.Contains(info, want) {
			t.Errorf("no %q in\n%s", want, info)
		}
	}
	command(t, c, "iscsi", "lun-del", "-t", "shots", "-l", "7", "--yes")
	if out := command(t, c, "snapshot", "list", "--json"); strings.Contains(out, all[0].UUID) || strings.Count(out, `"uuid"`) != 1 {
		t.Errorf("the LUN is gone, left are %s", out)
	}
}

// awaitLayers waits until the metadata servers count so many snapshots of a volume, those being deleted among them.
func awaitLayers(t *testing.T, c *cluster.Cluster, volume string, want uint64) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var v struct{ Snapshots uint64 }
		if err := json.Unmarshal([]byte(command(t, c, "get-attr", volume, "--json")), &v); err != nil {
			t.Fatal(err)
		}
		if v.Snapshots == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s has layers of %d snapshots still, want %d", volume, v.Snapshots, want)
		}
	}
}

// No layer of theirs is left in the end, the volume has what it had, and its replicas are identical.
func TestDeletedSnapshotsAreMergedWhileTheVolumeIsUsed(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
	model := check.New(64*mib, 5)
	client := connect(t, c.NBD("v"))
	for i := range 3 {
		if err := model.Run(client, 300, nil); err != nil {
			t.Fatal(err)
		}
		command(t, c, "snapshot", "create", "v", "--name", fmt.Sprint("s", i))
	}
	whileChanging(t, model, client, func() {
		command(t, c, "snapshot", "delete", "v@s1", "v@s0", "--yes")
		if all := shotsOf(t, c, "v"); len(all) != 1 || all[0].Name != "s2" {
			t.Errorf("%+v", all)
		}
		awaitLayers(t, c, "v", 1)
	})
	_ = client.Close()
	identical(t, c)
}
