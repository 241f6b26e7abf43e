// Lmtp-collector takes mail by LMTP, from an MTA in front of it, and publishes it to RabbitMQ. It answers 250 only for what
// the broker has confirmed, or what lies fsynced in a maildir until the broker has.
package main

import (
	"context"
	"os"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/lmtp-collector/internal/command"
	"spamtraps.internal/lmtp-collector/internal/config"
	"spamtraps.internal/lmtp-collector/internal/lmtp"
	"spamtraps.internal/lmtp-collector/internal/maildir"
	"spamtraps.internal/lmtp-collector/internal/spool"
)

// name is the program's.
const name = "lmtp-collector"

var service = daemon.Service[config.Config]{
	Name:     name,
	About:    "Takes mail by LMTP and publishes it to RabbitMQ; it answers 250 only for what the broker has confirmed, or a maildir holds until then.",
	Defaults: config.Defaults,
	Prefixes: []string{"MAILDIR"},
	Run:      run,
	Metrics:  metrics,
	Commands: []daemon.Command[config.Config]{command.Spool(), command.Replay()},
}

func main() { os.Exit(daemon.Main(service, daemon.OSProcess())) }

func run(ctx context.Context, d *daemon.Daemon, cfg config.Config) error {
	limitMemory(cfg.LMTP.Memory)
	p, err := build(d.Name+"/"+d.Version, cfg, d.Log, d.Metrics)
	if err != nil {
		return err
	}
	listener, err := lmtp.Listen(ctx, cfg.LMTP.Listen)
	if err != nil {
		return err
	}
	// Parts stop in the reverse order: first nothing more is replayed; then what the server has taken can still be published, and
	// what cannot be any more goes into the maildir. The server leaves the others, which need three seconds at most, half of the time.
	if p.disk != nil {
		d.Go("maildir", p.disk.Run)
	}
	d.Go("amqp", p.publisher.Run)
	d.Go("lmtp", func(ctx context.Context) error { return p.server.Serve(ctx, listener, cfg.ShutdownTimeout/2) })
	d.Go("spool", p.spool.Run)
	d.Show(p.status)
	watch(d, p.publisher, p.spool, p.server)
	return nil
}

// parts are what the service is made of.
type parts struct {
	publisher *amqp.Publisher
	disk      *maildir.Maildir // nil: there is none
	spool     *spool.Spool
	server    *lmtp.Server
}

// build makes the parts and starts none.
func build(app string, cfg config.Config, log zerolog.Logger, reg prometheus.Registerer) (*parts, error) {
	p := &parts{publisher: amqp.NewPublisher(cfg.AMQP, log, reg)}
	if cfg.Maildir.Path != "" {
		disk, err := maildir.Open(cfg.Maildir, log, reg)
		if err != nil {
			return nil, err
		}
		p.disk = disk
	}
	// Half of the window for mail that waited: new mail always has the other half. Of the memory a quarter, when there is any
	// such mail.
	old := spool.Share{Mails: cfg.AMQP.InFlight / 2, Bytes: cfg.LMTP.Memory / 4}
	if p.disk != nil {
		cfg.LMTP.Memory -= old.Bytes
	}
	p.spool = spool.New(p.publisher, p.disk, old, log, reg)
	identity := lmtp.Identity{App: app, Collector: name, Sensor: cfg.Sensor}
	p.server = lmtp.NewServer(cfg.LMTP, identity, p.spool, log, reg)
	return p, nil
}

// metrics registers also what only a service with a maildir has.
func metrics(cfg config.Config, reg prometheus.Registerer) error {
	folder, err := os.MkdirTemp("", "maildir")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }() // what is left there is empty
	cfg.Maildir.Path = folder
	_, err = build("", cfg, zerolog.Nop(), reg)
	return err
}

// limitMemory has garbage collected in time, so that all that is not mail fits into 40 MiB. GOMEMLIMIT overrules it.
func limitMemory(mail int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(mail + 40<<20)
	}
}

// watch says on /readyz how the parts are. The service can take mail, and so is ready, as long as either the broker or the
// maildir takes it.
func watch(d *daemon.Daemon, publisher *amqp.Publisher, spool *spool.Spool, server *lmtp.Server) {
	d.Watch("amqp", func() daemon.Health {
		state := publisher.State()
		taken := spool.Ready() == nil
		if !state.OK && taken && spool.HasDisk() {
			state.Text += "; mail goes to the maildir"
		}
		return daemon.Health{OK: state.OK || taken, Text: state.Text}
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
