package itest

import (
	"testing"

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
