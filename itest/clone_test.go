package itest

import (
	"encoding/json"
	"testing"
	"time"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
)

// With real processes: a clone, and one of its snapshot, are written beside what they stand over, while chunk servers die and return. Then the second is made
// to need nothing more, and all the others go.
func TestClonesLiveBesideWhatTheyStandOver(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	ctx := newContext(t)
	command(t, c, "create", "golden", "-s", "64M", "--chunk-size", "1M")
	golden := check.New(64*mib, 21)
	client := connect(t, c.NBD("golden"))
	defer client.Close()
	pass(t, golden.Run(client, 200, nil))
	command(t, c, "snapshot", "create", "golden", "--name", "v1")
	first := golden.Clone(2)
	command(t, c, "clone", "golden@v1", "vm1")
	pass(t, golden.Run(client, 50, nil))

	one := connect(t, c.NBD("vm1"))
	defer one.Close()
	pass(t, first.Verify(one))
	whileChanging(t, first, one, func() {
		c.CS[0].Kill()
		pass(t, golden.Run(client, 50, nil))
		pass(t, c.StartCS(ctx, 0))
	})
	command(t, c, "snapshot", "create", "vm1", "--name", "a")
	second := first.Clone(3)
	command(t, c, "clone", "vm1@a", "vm2")
	pass(t, first.Run(one, 50, nil))

	two := connect(t, c.NBD("vm2"))
	defer two.Close()
	pass(t, second.Verify(two))
	pass(t, second.Run(two, 100, nil))
	whileChanging(t, second, two, func() { command(t, c, "flatten", "vm2") })
	pass(t, golden.Verify(client))
	pass(t, first.Verify(one))
	_ = one.Close()
	_ = client.Close()
	command(t, c, "snapshot", "delete", "vm1@a", "--yes")
	command(t, c, "rm", "vm1", "--force")
	command(t, c, "rm", "golden", "--force")
	pass(t, second.Verify(two))
	_ = two.Close()
}

// With real processes: a volume goes back to a snapshot, on from there, and to another one, whichever of them is older; what each shows stays.
func TestAVolumeSwitchedToASnapshotIsWhatItWas(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
	now := check.New(64*mib, 31)
	saved := map[string]*check.Volume{}
	use := func() {
		client := connect(t, c.NBD("v"))
		pass(t, now.Verify(client))
		pass(t, now.Run(client, 60, nil))
		_ = client.Close()
		awaitClosed(t, c, "v")
	}
	for i, step := range []string{"", "a", "b", "a", "b"} {
		switch {
		case step == "":
		case saved[step] == nil:
			command(t, c, "snapshot", "create", "v", "--name", step)
			saved[step] = now.Clone(uint64(40 + i))
		default:
			pass(t, c.SwitchSnapshot(newContext(t), "/v", step))
			now = saved[step].Clone(uint64(50 + i))
		}
		use()
	}
	for name, model := range saved {
		client := connect(t, c.NBD("v@"+name))
		pass(t, model.Verify(client))
		_ = client.Close()
	}
}

// awaitClosed waits until nobody has a volume open.
func awaitClosed(t *testing.T, c *cluster.Cluster, volume string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var v struct{ Holder string }
		pass(t, json.Unmarshal([]byte(command(t, c, "get-attr", volume, "--json")), &v))
		if v.Holder == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is open still, at %s", volume, v.Holder)
		}
	}
}
