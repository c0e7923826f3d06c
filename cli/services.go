package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pstorage/cli/daemon"
	"pstorage/cli/print"
	"pstorage/meta/discovery"
	"pstorage/meta/metapb"
)

// lockName is the file in a server's folder that its daemon locks.
const lockName = "daemon.lock"

// service is one line of services.list: a server that was made on this machine.
type service struct {
	Kind string `json:"type"` // mds or cs
	ID   uint64 `json:"id"`
	Dir  string `json:"path"`
	PID  int    `json:"pid"` // 0: its daemon does not run
	// State is what the cluster says of a chunk server; empty if it was not asked, or does not answer.
	State string `json:"state,omitempty"`
}

func servicesFile(l discovery.Layout) string { return filepath.Join(l.Etc, "services.list") }

// recordService notes a server that was just made, so that list-services and the service manager find it.
func recordService(l discovery.Layout, s service) error {
	return appendLine(servicesFile(l), fmt.Sprintf("%s %d %s", s.Kind, s.ID, s.Dir))
}

// appendLine adds a line to a text file, made with its folder if need be, durably.
func appendLine(path, line string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(line + "\n")
	return errors.Join(err, file.Sync(), file.Close())
}

// readServices reads services.list. Of several lines with one folder the last counts.
func readServices(l discovery.Layout) ([]service, error) {
	file, err := os.Open(servicesFile(l))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var found []service
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if s, ok := parseService(lines.Text()); ok {
			found = append(without(found, s.Dir), s)
		}
	}
	return found, nil
}

func without(list []service, dir string) (rest []service) {
	for _, s := range list {
		if s.Dir != dir {
			rest = append(rest, s)
		}
	}
	return rest
}

func parseService(line string) (s service, ok bool) {
	kind, rest, _ := strings.Cut(line, " ")
	number, dir, ok := strings.Cut(rest, " ")
	id, err := strconv.ParseUint(number, 10, 64)
	return service{Kind: kind, ID: id, Dir: dir}, ok && err == nil && !strings.HasPrefix(line, "#")
}

func (a *app) listServicesCommand() *cobra.Command {
	var onlyCS, onlyMDS bool
	cmd := &cobra.Command{
		Use: "list-services", Short: "List the servers made on this machine",
		Long:    "List the cluster's servers that were made on this machine with make-mds and make-cs, their folders, and whether their daemons run.",
		Example: "  pstorage -c pcs1 list-services\n  pstorage -c pcs1 list-services -C\n  pstorage -c pcs1 list-services -M",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if onlyMDS {
				return a.listMDS(cmd)
			}
			if err := a.needCluster(); err != nil {
				return err
			}
			all, err := readServices(a.layout())
			if err != nil {
				return err
			}
			shown := make([]service, 0, len(all))
			for _, s := range all {
				if s.Kind == "cs" || !onlyCS {
					s.PID = daemon.Owner(filepath.Join(s.Dir, lockName))
					shown = append(shown, s)
				}
			}
			if onlyCS {
				a.addStates(cmd, shown)
			}
			return a.show(shown, func(w io.Writer) error { return serviceTable(w, shown, onlyCS) })
		},
	}
	cmd.Flags().BoolVarP(&onlyCS, "chunk-servers", "C", false, "chunk servers only, with what the cluster says of them")
	cmd.Flags().BoolVarP(&onlyMDS, "metadata-servers", "M", false, "all metadata servers of the cluster, on whatever machine, with their state and load")
	return cmd
}

// stateTime bounds how long list-services waits for a cluster that it does not need.
const stateTime = 2 * time.Second

// addStates adds what the cluster says of chunk servers, if it answers.
func (a *app) addStates(cmd *cobra.Command, services []service) {
	meta, closer, err := a.connect(a)
	if err != nil {
		return
	}
	defer closer.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), min(stateTime, a.timeout))
	defer cancel()
	reply, err := meta.Status(ctx, &metapb.StatusRequest{})
	if err != nil {
		return
	}
	for i := range services {
		for _, s := range reply.GetServers() {
			if uint64(s.GetId()) == services[i].ID {
				services[i].State = print.NewCS(s).Status
			}
		}
	}
}

func serviceTable(w io.Writer, services []service, states bool) error {
	columns := []string{"TYPE", ">ID", "STATUS", "FOLDER"}
	if states {
		columns = []string{"TYPE", ">ID", "STATE", "STATUS", "FOLDER"}
	}
	rows := make([][]string, 0, len(services))
	for _, s := range services {
		state := "stopped"
		if s.PID != 0 {
			state = fmt.Sprintf("running (%d)", s.PID)
		}
		row := []string{strings.ToUpper(s.Kind), strconv.FormatUint(s.ID, 10)}
		if states {
			row = append(row, cmp.Or(s.State, "-"))
		}
		rows = append(rows, append(row, state, s.Dir))
	}
	return print.Table(w, columns, rows)
}
