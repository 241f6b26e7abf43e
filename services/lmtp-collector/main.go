// Lmtp-collector takes mail by LMTP, from an MTA in front of it, and publishes it to RabbitMQ. It answers 250 only for what
// the broker has confirmed.
package main

import (
	"context"
	"os"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/lmtp-collector/internal/config"
	"spamtraps.internal/lmtp-collector/internal/lmtp"
)

var service = daemon.Service[config.Config]{
	Name:     "lmtp-collector",
	About:    "Takes mail by LMTP and publishes it to RabbitMQ; it answers 250 only for what the broker has confirmed.",
	Defaults: config.Defaults,
	Prefixes: []string{"MAILDIR"},
	Run:      run,
}

func main() { os.Exit(daemon.Main(service, daemon.OSProcess())) }

func run(ctx context.Context, d *daemon.Daemon, cfg config.Config) error {
	publisher := amqp.NewPublisher(cfg.AMQP, d.Log, d.Metrics)
	identity := lmtp.Identity{App: d.Name + "/" + d.Version, Collector: d.Name, Sensor: cfg.Sensor}
	server := lmtp.NewServer(cfg.LMTP, identity, publisher, d.Log, d.Metrics)
	listener, err := lmtp.Listen(ctx, cfg.LMTP.Listen)
	if err != nil {
		return err
	}
	// Parts stop in the reverse order: what the server has taken can still be published. It leaves the publisher a
	// quarter of the time.
	d.Go("amqp", publisher.Run)
	d.Go("lmtp", func(ctx context.Context) error { return server.Serve(ctx, listener, cfg.ShutdownTimeout/4*3) })
	d.Watch("amqp", func() daemon.Health {
		state := publisher.State()
		return daemon.Health{OK: state.OK, Text: state.Text}
	})
	d.Watch("lmtp", func() daemon.Health {
		ok, text := server.Health()
		return daemon.Health{OK: ok, Text: text}
	})
	return nil
}
