package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/collector"
	"spamtraps.internal/imap-collector/internal/command"
	"spamtraps.internal/imap-collector/internal/config"
	"spamtraps.internal/imap-collector/internal/state"
	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/daemon"
)

// program is what the service shows itself on.
type program struct {
	screen *command.Screen
	stdout io.Writer
}

func (p *program) run(_ context.Context, d *daemon.Daemon, cfg config.Config) error {
	store, err := state.Open(cfg.IMAP.State, d.Log)
	if err != nil {
		return err
	}
	cfg.Tokens.SetLog(d.Log)
	accounts := cfg.Mine()
	announce(d, cfg, accounts)
	limitMemory(cfg.IMAP.Memory)
	identity := collector.Identity{App: d.Name + "/" + d.Version, Collector: d.Name, Sensor: cfg.Sensor}
	publisher, boxes := build(identity, cfg, accounts, store, d.Log, d.Metrics)

	// Parts stop in the reverse order: the mailboxes first, while what they have on its way can still be confirmed. They leave the publisher,
	// which needs three seconds at most, half of the time.
	d.Go("state", func(ctx context.Context) error { <-ctx.Done(); return store.Close() })
	d.Go("amqp", publisher.Run)
	if cfg.IMAP.Continuous {
		d.Go("imap", boxes.Run)
	} else {
		d.Go("imap", func(ctx context.Context) error { return p.once(ctx, d, accounts, boxes) })
	}
	d.Watch("amqp", func() daemon.Health { state := publisher.State(); return daemon.Health{OK: state.OK, Text: state.Text} })
	d.Show(func() daemon.Status { return statusOf(boxes) })
	d.Watch("imap", func() daemon.Health { ok, text := boxes.Health(); return daemon.Health{OK: ok, Text: text} })
	return nil
}

// build makes the parts and starts none.
func build(identity collector.Identity, cfg config.Config, accounts []account.Account, store *state.Store, log zerolog.Logger,
	reg prometheus.Registerer,
) (*amqp.Publisher, *collector.Collector) {
	reg.MustRegister(newTokenAges(accounts))
	publisher := amqp.NewPublisher(cfg.AMQP, log, reg)
	return publisher, collector.New(collectorConfig(cfg), identity, accounts, publisher, store, log, reg)
}

func metrics(cfg config.Config, reg prometheus.Registerer) error {
	build(collector.Identity{}, cfg, nil, nil, zerolog.Nop(), reg)
	return nil
}

func collectorConfig(cfg config.Config) collector.Config {
	return collector.Config{
		Memory: cfg.IMAP.Memory, Window: cfg.AMQP.InFlight, MaxPerHost: cfg.IMAP.MaxPerHost, LoginRate: cfg.IMAP.LoginRate, Parallel: cfg.IMAP.Parallel,
		StaleAfter: cfg.IMAP.StaleAfter, Timeout: cfg.IMAP.Timeout, StopGrace: cfg.ShutdownTimeout / 2,
	}
}

// limitMemory has garbage collected in time, so that all that is not mail fits into 64 MiB. A quarter of these is left for what the runtime does not
// count, the program itself most of all, and since it may overstep its limit by a little. GOMEMLIMIT overrules it.
func limitMemory(mail int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(mail + 48<<20)
	}
}

// announce says how many mailboxes there are, and whose share of them this is.
func announce(d *daemon.Daemon, cfg config.Config, accounts []account.Account) {
	event := d.Log.Info().Int("mailboxes", len(accounts)).Int("configured", len(cfg.Accounts))
	if cfg.ShardCount > 1 {
		event = event.Str("shard", fmt.Sprintf("%d of %d", cfg.ShardIndex, cfg.ShardCount))
	}
	event.Msg("mailboxes")
}
