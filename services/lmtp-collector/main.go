// Lmtp-collector takes mail by LMTP, from an MTA in front of it, and publishes it to RabbitMQ. It answers 250 only for what
// the broker has confirmed, or what lies fsynced in a maildir until the broker has.
package main

import (
	"context"
	"os"
	"runtime/debug"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/lmtp-collector/internal/command"
	"spamtraps.internal/lmtp-collector/internal/config"
	"spamtraps.internal/lmtp-collector/internal/lmtp"
	"spamtraps.internal/lmtp-collector/internal/maildir"
	"spamtraps.internal/lmtp-collector/internal/spool"
)

var service = daemon.Service[config.Config]{
	Name:     "lmtp-collector",
	About:    "Takes mail by LMTP and publishes it to RabbitMQ; it answers 250 only for what the broker has confirmed, or a maildir holds until then.",
	Defaults: config.Defaults,
	Prefixes: []string{"MAILDIR"},
	Run:      run,
	Commands: []daemon.Command[config.Config]{command.Spool(), command.Replay()},
}

func main() { os.Exit(daemon.Main(service, daemon.OSProcess())) }

func run(ctx context.Context, d *daemon.Daemon, cfg config.Config) error {
	publisher := amqp.NewPublisher(cfg.AMQP, d.Log, d.Metrics)
	disk, err := openMaildir(cfg.Maildir, d)
	if err != nil {
		return err
	}
	limitMemory(cfg.LMTP.Memory)
	// Half of the window for mail that waited: new mail always has the other half. Of the memory a quarter, when there is any
	// such mail.
	old := spool.Share{Mails: cfg.AMQP.InFlight / 2, Bytes: cfg.LMTP.Memory / 4}
	if disk != nil {
		cfg.LMTP.Memory -= old.Bytes
	}
	spool := spool.New(publisher, disk, old, d.Log, d.Metrics)
	identity := lmtp.Identity{App: d.Name + "/" + d.Version, Collector: d.Name, Sensor: cfg.Sensor}
	server := lmtp.NewServer(cfg.LMTP, identity, spool, d.Log, d.Metrics)
	listener, err := lmtp.Listen(ctx, cfg.LMTP.Listen)
	if err != nil {
		return err
	}
	// Parts stop in the reverse order: first nothing more is replayed; then what the server has taken can still be published, and
	// what cannot be any more goes into the maildir. The server leaves the others, which need three seconds at most, half of the time.
	if disk != nil {
		d.Go("maildir", disk.Run)
	}
	d.Go("amqp", publisher.Run)
	d.Go("lmtp", func(ctx context.Context) error { return server.Serve(ctx, listener, cfg.ShutdownTimeout/2) })
	d.Go("spool", spool.Run)
	watch(d, publisher, spool, server)
	return nil
}

// limitMemory has garbage collected in time, so that all that is not mail fits into 40 MiB. GOMEMLIMIT overrules it.
func limitMemory(mail int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(mail + 40<<20)
	}
}

// openMaildir returns nil when none is set.
func openMaildir(cfg maildir.Config, d *daemon.Daemon) (*maildir.Maildir, error) {
	if cfg.Path == "" {
		return nil, nil
	}
	return maildir.Open(cfg, d.Log, d.Metrics)
}

// watch says on /readyz how the parts are. The service can take mail, and so is ready, as long as either the broker or the
// maildir takes it.
func watch(d *daemon.Daemon, publisher *amqp.Publisher, spool *spool.Spool, server *lmtp.Server) {
	d.Watch("amqp", func() daemon.Health {
		state := publisher.State()
		return daemon.Health{OK: state.OK || spool.Ready() == nil, Text: state.Text}
	})
	if spool.HasDisk() {
		d.Watch("spool", func() daemon.Health {
			ok, text := spool.Health()
			return daemon.Health{OK: ok || publisher.State().OK, Text: text}
		})
	}
	d.Watch("lmtp", func() daemon.Health {
		ok, text := server.Health()
		return daemon.Health{OK: ok, Text: text}
	})
}
