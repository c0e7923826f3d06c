package meta

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"pstorage/meta/client"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

// survivorTime is how long another metadata server may take to say that it is there.
const survivorTime = 3 * time.Second

// Survivors names the other metadata servers of a folder's cluster that answer now. While there are any, the folder's server must not go on alone (Recover):
// they may be a majority, or become one.
func Survivors(ctx context.Context, dir string) (found []string, err error) {
	o, err := openOffline(dir)
	if err != nil {
		return nil, err
	}
	defer o.close()
	var others []*fsmpb.Member
	err = o.machine.View(func(v *fsm.View) error {
		others = slices.DeleteFunc(v.MetadataServers(), func(m *fsmpb.Member) bool { return m.Id == fmt.Sprint(o.identity.Node) })
		return nil
	})
	ctx, cancel := context.WithTimeout(ctx, survivorTime)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, m := range others {
		asking.Go(func() {
			if !answers(ctx, m.ClientAddress, o.identity) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			found = append(found, fmt.Sprintf("%s (%s)", m.Id, m.ClientAddress))
		})
	}
	asking.Wait()
	slices.SortFunc(found, strings.Compare)
	return found, err
}

// answers tells whether a metadata server of that cluster is there. One that does not say of which cluster it is counts.
func answers(ctx context.Context, address string, id *identity) bool {
	c, err := client.New([]string{address})
	if err != nil {
		return false
	}
	defer c.Close()
	r, err := c.Members(ctx, &metapb.MembersRequest{})
	return err == nil && (len(r.ClusterId) == 0 || string(r.ClusterId) == string(id.ClusterID[:]))
}
