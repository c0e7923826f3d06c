package itest

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pstorage/cli/print"
	"pstorage/itest/check"
	"pstorage/itest/cluster"
	"pstorage/itest/scenario"
)

// volumeOf is what ls says of a volume.
func volumeOf(t *testing.T, c *cluster.Cluster, name string) print.Volume {
	t.Helper()
	var all []print.Volume
	if err := json.Unmarshal([]byte(command(t, c, "ls", "--json")), &all); err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		if v.Name == name {
			return v
		}
	}
	t.Fatalf("there is no volume %s: %+v", name, all)
	return print.Volume{}
}

// A front end and a chunk server die and never come back. Nobody opens the volume again: what was being written is made equal and whole
// all the same, and a server that has copies of it can be emptied.
func TestWhatAFrontEndLeavesIsMadeWholeWithoutOne(t *testing.T) {
	c := newCluster(t, cluster.Options{Servers: 5})
	ctx := newContext(t)
	if err := c.Configure(ctx, map[string]string{"mds.wd.offline_tout": "10s", "mds.wd.takeover_tout": "10s"}); err != nil {
		t.Fatal(err)
	}
	command(t, c, "create", "v", "-s", "32M", "--chunk-size", "1M")
	model := check.New(32*mib, 17)
	client := connect(t, c.NBD("v"))
	if err := model.Run(client, 200, nil); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(300*time.Millisecond, c.Targets.Kill)
	defer stop.Stop()
	if err := model.Run(client, 1<<30, nil); err == nil {
		t.Fatal("no error although the front end was killed")
	}
	c.CS[1].Kill()
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		v := volumeOf(t, c, "v")
		if v.Clean && v.Holder == "" && v.Degraded+v.Blocked+v.Offline == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("not taken over: %+v\n%s", v, command(t, c, "stat"))
		}
	}
	command(t, c, "rm-cs", "-f", "-y", "1026")
	if out := command(t, c, "rm-cs", "--wait", "1025"); !strings.Contains(out, "chunk server 1025 is dropped") {
		t.Fatal(out)
	}
	compareRest(t, c, 2, 3, 4)
	if err := c.StartTargets(ctx); err != nil {
		t.Fatal(err)
	}
	client = connect(t, c.NBD("v"))
	defer client.Close()
	if err := model.Verify(client); err != nil {
		t.Fatal(err)
	}
}

// compareRest compares what some chunk servers have on their disks, and starts them again.
func compareRest(t *testing.T, c *cluster.Cluster, servers ...int) {
	t.Helper()
	var dirs []string
	for _, i := range servers {
		if _, err := c.CS[i].Stop(); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, c.CSDir(i))
	}
	if _, err := scenario.Identical(newContext(t), binary, dirs, len(dirs)); err != nil {
		t.Error(err)
	}
	for _, i := range servers {
		if err := c.StartCS(newContext(t), i); err != nil {
			t.Fatal(err)
		}
	}
}
