// Hpfeeds-bridge takes mail out of a queue of its own at RabbitMQ and publishes it to the channels of an hpfeeds broker. It acknowledges to RabbitMQ only
// what the hpfeeds broker has, as far as that protocol lets anybody know.
package main

import (
	"context"
	"os"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"spamtraps.internal/hpfeeds-bridge/internal/bridge"
	"spamtraps.internal/hpfeeds-bridge/internal/command"
	"spamtraps.internal/hpfeeds-bridge/internal/config"
	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/daemon"
)

func main() { os.Exit(daemon.Main(service(), daemon.OSProcess())) }

// service returns a new one each time: its commands keep what their flags say.
func service() daemon.Service[config.Config] {
	return daemon.Service[config.Config]{
		Name:     "hpfeeds-bridge",
		About:    "Publishes the mail that is in RabbitMQ to an hpfeeds broker; it acknowledges only what that broker has.",
		Defaults: config.Defaults,
		Run:      run,
		Metrics:  metrics,
		Commands: []daemon.Command[config.Config]{command.Tail(), command.Check(), command.Deadletter()},
	}
}

func run(_ context.Context, d *daemon.Daemon, cfg config.Config) error {
	if !cfg.On {
		d.Log.Info().Msg("no hpfeeds broker is configured (HPFEEDS_HOST), so there is nothing to do: nothing is declared or consumed")
		d.Watch("hpfeeds", func() daemon.Health { return daemon.Health{OK: true, Text: "hpfeeds: not configured, nothing to do"} })
		return nil
	}
	limitMemory(cfg.Bridge.Memory)
	consumer, morgue, b := build(cfg, d.Log, d.Metrics)
	// Parts stop in the reverse order: first the bridge takes nothing more and waits for what is on its way; then the connections go.
	d.Go("morgue", morgue.Run)
	d.Go("amqp", consumer.Run)
	d.Go("bridge", b.Run)
	d.Show(func() daemon.Status { return statusOf(consumer, morgue, b) })
	d.Watch("amqp", func() daemon.Health {
		state := consumer.State()
		return daemon.Health{OK: state.OK, Text: state.Text}
	})
	d.Watch("hpfeeds", func() daemon.Health {
		ok, text := b.Health()
		return daemon.Health{OK: ok, Text: text}
	})
	return nil
}

// build makes the parts and starts none.
func build(cfg config.Config, log zerolog.Logger, reg prometheus.Registerer) (*amqp.Consumer, *amqp.Publisher, *bridge.Bridge) {
	consumer := amqp.NewConsumer(cfg.AMQP, cfg.Bridge.Source(), log, reg)
	morgue := amqp.NewPublisher(cfg.Bridge.Morgue(cfg.AMQP), log, reg)
	return consumer, morgue, bridge.New(cfg.Bridge, cfg.HPFeeds, consumer, morgue, log, reg)
}

func metrics(cfg config.Config, reg prometheus.Registerer) error {
	build(cfg, zerolog.Nop(), reg)
	return nil
}

// limitMemory has garbage collected in time, so that all that is not mail fits into 40 MiB. GOMEMLIMIT overrules it.
func limitMemory(mail int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(mail + 40<<20)
	}
}
