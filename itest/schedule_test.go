package itest

import (
	"testing"
	"time"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
)

// With real processes: the first of a schedule are due at once, of a volume in use and of one that nobody has open.
func TestSchedulesAreKeptByTheLeader(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	models := map[string]*check.Volume{}
	for i, volume := range []string{"used", "idle"} {
		command(t, c, "create", volume, "-s", "16M", "--chunk-size", "1M")
		models[volume] = check.New(16*mib, uint64(i))
		client := connect(t, c.NBD(volume))
		pass(t, models[volume].Run(client, 100, nil))
		if volume == "idle" {
			_ = client.Close()
		} else {
			defer client.Close()
		}
		command(t, c, "snapshot", "schedule", volume, "hourly=3", "daily=2")
	}
	for volume, model := range models {
		var all []shot
		for end := time.Now().Add(3 * time.Minute); len(all) == 0 && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			all = shotsOf(t, c, volume)
		}
		if len(all) == 0 {
			t.Fatalf("no snapshot of %s was taken", volume)
		}
		client := connect(t, c.NBD(volume+"@"+all[0].Name))
		if err := model.Verify(client); err != nil {
			t.Errorf("%s: %v", volume, err)
		}
		_ = client.Close()
	}
}
