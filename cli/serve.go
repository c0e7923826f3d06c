package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"pstorage/cli/daemon"
	"pstorage/cli/print"
)

// closeTime is what a daemon may take to end. Who stops it (systemd, a script) expects it gone within 5 s.
const closeTime = 4500 * time.Millisecond

// host is what a service runs in.
type host struct {
	logger   *slog.Logger
	registry *prometheus.Registry
}

// running is a service that has started.
type running struct {
	ways   []string // one line per address, for whoever started it
	close  func() error
	failed <-chan struct{} // closed when it cannot go on; close tells why. nil: never
}

// daemonCommand is what the commands that run until a signal have in common.
type daemonCommand struct {
	app      *app
	lock     string // file to lock; empty: none
	services int    // daemons in this process
	metrics  string // address of the metrics page; empty: none
}

// run starts the service, says so, and ends it when a signal comes.
func (d daemonCommand) run(cmd *cobra.Command, start func(context.Context, host) (*running, error)) error {
	logger, err := d.app.logger()
	if err != nil {
		return err
	}
	daemon.LimitMemory(d.services, d.app.env)
	if d.lock != "" {
		lock, err := daemon.TakeLock(d.lock)
		if err != nil {
			return fmt.Errorf("cannot start: %w", err)
		}
		defer lock.Release()
	}
	ctx, stop := daemon.UntilSignal(cmd.Context())
	defer stop()
	h := host{logger, daemon.NewRegistry()}
	if d.metrics != "" {
		metrics, err := daemon.ServeMetrics(d.metrics, d.app.insecure, h.registry, logger)
		if err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
		defer metrics.Close()
		logger.Info("metrics page", "url", "http://"+metrics.Addr()+"/metrics")
	}
	service, err := start(ctx, h)
	if err != nil {
		return interrupted(ctx, err)
	}
	return d.untilSignal(ctx, logger, service)
}

// interrupted says of a start that a signal ended that this is no failure.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (d daemonCommand) untilSignal(ctx context.Context, logger *slog.Logger, service *running) error {
	notify := func(state string) {
		if err := daemon.Notify(d.app.env("NOTIFY_SOCKET"), state); err != nil {
			logger.Warn("service manager", "error", err)
		}
	}
	d.app.announce(service.ways)
	notify(daemon.Ready)
	select {
	case <-ctx.Done():
	case <-service.failed:
	}
	notify(daemon.Stopping)
	logger.Info("stopping")
	return closeWithin(closeTime, service.close)
}

// announce prints where the service is to be had, then that it is.
func (a *app) announce(ways []string) {
	if a.json {
		_ = print.JSON(a.out, map[string]any{"ready": true, "ways": ways})
		return
	}
	fmt.Fprintln(a.out, strings.Join(append(ways[:len(ways):len(ways)], "ready"), "\n"))
}

// closeWithin gives up on a close that hangs: the process is about to end, and nothing that was promised depends on an orderly end.
func closeWithin(limit time.Duration, closeAll func() error) error {
	done := make(chan error, 1)
	go func() { done <- closeAll() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("not everything had stopped after %v; it will recover at the next start", limit)
	}
}

// metricsFlag adds --metrics.
func metricsFlag(cmd *cobra.Command, address *string) {
	cmd.Flags().StringVar(address, "metrics", "", "serve Prometheus /metrics and /debug/pprof at `ADDR`, HOST:PORT")
}
