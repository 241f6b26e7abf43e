// Hpfeeds-broker is a small hpfeeds broker to try hpfeeds-bridge out with: on one machine, in the demo, and against what real brokers do
// wrong. It keeps no message for subscribers that are not there.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"spamtraps.internal/hpfeeds-broker/internal/config"
	"spamtraps.internal/hpfeeds-broker/internal/users"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/hpfeeds/hpfeedstest"
)

var service = daemon.Service[config.Config]{
	Name:     "hpfeeds-broker",
	About:    "A small hpfeeds broker for trials: it logs clients in and hands messages on, or misbehaves as a script has it.",
	Defaults: config.Defaults,
	Run:      run,
	Metrics: func(_ config.Config, reg prometheus.Registerer) error {
		measure(reg, hpfeedstest.New(hpfeedstest.Config{}))
		return nil
	},
}

func main() { os.Exit(daemon.Main(service, daemon.OSProcess())) }

func run(ctx context.Context, d *daemon.Daemon, cfg config.Config) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Broker.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if cfg.Broker.Script != "" {
		return misbehave(d, cfg.Broker, listener)
	}
	known, secrets, err := users.Load(cfg.Broker)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	security, err := secured(cfg.Broker)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	how := manner(cfg.Broker)
	how.Users, how.Secrets, how.TLS, how.Log = known, secrets, security, d.Log
	broker := hpfeedstest.New(how)
	measure(d.Metrics, broker)
	//nolint:contextcheck // a connection ends with the broker, which this context ends
	d.Go("hpfeeds", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = broker.Close() })
		defer stop()
		err := broker.Serve(listener)
		_ = broker.Close() // returns when all connections are gone
		return err
	})
	d.Log.Info().Stringer("address", listener.Addr()).Int("users", len(known)).Msg("listening")
	d.Watch("hpfeeds", func() daemon.Health {
		s := broker.Stats()
		return daemon.Health{OK: true, Text: fmt.Sprintf("hpfeeds: listening on %s, %d connections, %d subscriptions", listener.Addr(), s.Open, s.Subscribers)}
	})
	return nil
}

// manner is how the broker behaves.
func manner(cfg config.Broker) hpfeedstest.Config {
	return hpfeedstest.Config{Name: cfg.Name, Manners: cfg.Kind(), MaxFrame: int(cfg.MaxFrame), Hold: cfg.Held(), Exact: cfg.Exact}
}

// misbehave serves a script.
func misbehave(d *daemon.Daemon, cfg config.Broker, listener net.Listener) error {
	script, err := hpfeedstest.NewScript(cfg.Script)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	d.Go("hpfeeds", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
		defer stop()
		err := script.Serve(listener)
		script.Close()
		if ctx.Err() != nil {
			return nil // it is the end of the listener that we made
		}
		return err
	})
	d.Log.Warn().Stringer("address", listener.Addr()).Str("script", cfg.Script).Msg("listening, to misbehave")
	d.Watch("hpfeeds", func() daemon.Health {
		return daemon.Health{OK: true, Text: fmt.Sprintf("hpfeeds: misbehaving as %s, %d messages read", cfg.Script, script.Messages())}
	})
	return nil
}

// secured returns nil when no certificate is set.
func secured(cfg config.Broker) (*tls.Config, error) {
	if cfg.TLSCertFile == "" {
		return nil, nil //nolint:nilnil // nil is no TLS
	}
	pair, err := tls.LoadX509KeyPair(cfg.TLSCertFile, cfg.TLSKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}, nil
}

// measure shows the broker's counts on /metrics.
func measure(reg prometheus.Registerer, broker *hpfeedstest.Broker) {
	for _, m := range []struct {
		name, help string
		gauge      bool
		value      func(hpfeedstest.Stats) float64
	}{
		{"logins_total", "Connections that have logged in.", false, func(s hpfeedstest.Stats) float64 { return float64(s.Connections) }},
		{"refused_total", "Logins and frames that were refused.", false, func(s hpfeedstest.Stats) float64 { return float64(s.Refused) }},
		{"published_total", "Messages that were taken.", false, func(s hpfeedstest.Stats) float64 { return float64(s.Published) }},
		{"delivered_total", "Messages that were sent to a subscriber.", false, func(s hpfeedstest.Stats) float64 { return float64(s.Delivered) }},
		{"unheard_total", "Messages that nobody had subscribed to.", false, func(s hpfeedstest.Stats) float64 { return float64(s.Unheard) }},
		{"cut_total", "Subscribers that were cut because they read too slowly.", false, func(s hpfeedstest.Stats) float64 { return float64(s.Cut) }},
		{"connections", "Connections right now.", true, func(s hpfeedstest.Stats) float64 { return float64(s.Open) }},
		{"subscriptions", "Subscriptions right now.", true, func(s hpfeedstest.Stats) float64 { return float64(s.Subscribers) }},
	} {
		name, read := "spamtraps_broker_"+m.name, func() float64 { return m.value(broker.Stats()) }
		if m.gauge {
			reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: m.help}, read))
		} else {
			reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: m.help}, read))
		}
	}
}
