// Package bridge carries mail from a queue of RabbitMQ's to the channels of an hpfeeds broker, and lets go of none before that broker has it, as far as a
// protocol without acknowledgements lets anybody know.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/hpfeeds"
)

// Source is where mail comes from: an amqp.Consumer.
type Source interface {
	Stints() <-chan *amqp.Stint
	Pause()
	Resume()
}

// Morgue takes mails that cannot be published: an amqp.Publisher.
type Morgue interface {
	Publish(ctx context.Context, m amqp091.Publishing) error
}

// Bridge publishes every mail of the source to every channel.
//
// The promise: a mail is acknowledged to RabbitMQ only when the hpfeeds broker has it. With a fence that means that the broker has processed it: a
// token that was published after it, on the same connection, has come back over another one. Without one (drained) it means that the broker's machine has all of its bytes
// and the broker has not said no within a short while; what lies in that machine's buffers when the broker is killed is lost then. Any ERROR frame, end or
// reset of a connection fails all that is on its way: it stays in the queue, which gives it to the next connection. While there is none nothing is
// consumed, and the queue keeps everything.
//
// One goroutine, Run's, owns all of the state but what Health shows.
type Bridge struct {
	cfg     Config
	feed    hpfeeds.Config
	source  Source
	morgue  Morgue
	log     zerolog.Logger
	metrics *metrics
	dial    func(ctx context.Context) (connection, error)

	trouble       notice
	retry         hpfeeds.Backoff
	fenceFailures int
	fenceAgain    time.Time // no fence is tried before
	suspects      suspects

	mu     sync.Mutex
	text   string // how it is
	well   bool
	since  time.Time
	flying int // mails on their way
}

// New returns a bridge that does nothing before Run. It registers its metrics with reg, so a registry takes one bridge. Both configurations must be
// valid; morgue publishes into the dead-letter queue.
func New(cfg Config, feed hpfeeds.Config, source Source, morgue Morgue, log zerolog.Logger, reg prometheus.Registerer) *Bridge {
	b := &Bridge{cfg: cfg, feed: feed, source: source, morgue: morgue, log: log, text: "not running", since: time.Now()}
	b.dial = func(ctx context.Context) (connection, error) {
		conn, err := hpfeeds.Dial(ctx, b.feed, hpfeeds.Options{})
		if err != nil {
			return nil, err // not the nil *Conn in an interface
		}
		return conn, nil
	}
	b.metrics = newMetrics(reg, b)
	return b
}

// Run carries mail until ctx ends; no fault makes it give up. When ctx has ended it takes nothing more and waits for what is on its way, for as long as
// stopLimit, and returns nil.
func (b *Bridge) Run(ctx context.Context) error {
	defer b.state(false, "not running")
	b.state(false, "connecting to "+b.feed.Address())
	for ctx.Err() == nil {
		began := time.Now()
		err := b.once(ctx)
		if ctx.Err() != nil {
			return nil
		}
		b.failed(err)
		_ = b.retry.Wait(ctx, time.Since(began), err) // the loop sees the end of ctx itself
	}
	return nil
}

// once makes a pipe and uses it until it fails.
func (b *Bridge) once(ctx context.Context) error {
	p, err := b.open(ctx)
	if err != nil {
		b.suspects.away(err)
		return err
	}
	if p.echo != nil {
		b.retry.Admitted() // a token has come back
	}
	b.connected(p)
	b.source.Resume()
	defer b.source.Pause()
	return b.carry(ctx, p)
}

func (b *Bridge) connected(p *pipe) {
	b.metrics.connections.Inc()
	for _, mode := range []string{confirmDrained, confirmFence} {
		on := 0.
		if mode == p.mode() {
			on = 1
		}
		b.metrics.confirm.WithLabelValues(mode).Set(on)
	}
	event := b.log.Info().Str("broker", b.feed.Address()).Strs("channels", b.feed.Channels).Str("confirm", p.mode())
	if b.trouble.clear() {
		b.mu.Lock()
		event = event.Dur("after", time.Since(b.since))
		b.mu.Unlock()
	}
	event.Msg("hpfeeds: connected")
	b.state(true, fmt.Sprintf("publishing to %s, confirmed by %s", b.feed.Address(), p.mode()))
}

// failed notes why there is no pipe any more, or still none.
func (b *Bridge) failed(err error) {
	reason := hpfeeds.Reason("other")
	if e, ok := errors.AsType[*hpfeeds.Error](err); ok {
		reason = e.Reason
	}
	b.metrics.failures.WithLabelValues(string(reason)).Inc()
	b.state(false, strings.TrimPrefix(err.Error(), "hpfeeds: "))
	b.trouble.warn(&b.log, err, "hpfeeds: nothing is published, and the queue keeps all")
}

// state notes how things are for Health. While they are not well the time counts from when that began.
func (b *Bridge) state(well bool, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if well != b.well || b.text == "not running" {
		b.since = time.Now()
	}
	b.well, b.text, b.flying = well, text, 0
}

func (b *Bridge) setFlying(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flying = n
}

// Since returns when that which Health tells began.
func (b *Bridge) Since() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.since
}

// Health tells whether mail can be published, and how it is in words: "hpfeeds: cannot reach broker:10000: connection refused, for 12 s". It does not block.
func (b *Bridge) Health() (ok bool, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.well {
		return true, fmt.Sprintf("hpfeeds: %s, %d mails on their way", b.text, b.flying)
	}
	return false, fmt.Sprintf("hpfeeds: %s, for %d s", b.text, int(time.Since(b.since).Seconds()))
}
