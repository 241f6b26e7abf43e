// Package amqp hands messages to a RabbitMQ broker (Publisher), lets go of none before the broker has confirmed and routed it, and takes
// messages out of a queue (Consumer), which keeps each until its user has acknowledged it. It knows connections, confirms, returns and
// budgets, and nothing of mail.
package amqp

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"
)

// Publisher publishes to one exchange over one connection, which it makes again for as long as it runs.
//
// The promise: Publish returns nil only after the broker has confirmed the message and routed it to at least one queue, over
// a connection at whose start the backlog queue existed and was bound. Whoever has anything else in hand still holds the message and tries
// it again, with the same MessageId, because it may have been stored all the same. So nothing is lost, and a crash leaves
// at most as many duplicates as the window is wide.
//
// All methods may be called from any number of goroutines.
type Publisher struct {
	cfg     Config
	log     zerolog.Logger
	door    *door
	metrics *metrics

	limit     atomic.Int64           // largest body: as configured, or what the broker has said
	tooLarge  atomic.Bool            // the last session ended because of a larger one
	forbidden atomic.Bool            // it has been said that the broker's own definitions own the binding
	backlog   atomic.Pointer[string] // what is to be said of the backlog queue, if anything

	brokers      brokers // only Run's goroutine uses it
	backlogEvery time.Duration
	stopGrace    time.Duration
	jitter       func(time.Duration) time.Duration
	connection   notice // what Run reports of the connection,
	alarm        notice // of alarms, and what
	delivery     notice // Publish reports of nacks, returns and missed confirms
}

// NewPublisher returns a publisher that does not connect before Run. It registers its metrics with reg, so a registry takes
// one publisher. cfg must be valid.
func NewPublisher(cfg Config, log zerolog.Logger, reg prometheus.Registerer) *Publisher {
	p := &Publisher{
		cfg:          cfg,
		log:          log,
		door:         newDoor(cfg.InFlight, cfg.InFlightBytes, time.Now, fullJitter),
		backlogEvery: 30 * time.Second,
		stopGrace:    5 * time.Second,
		jitter:       fullJitter,
	}
	p.brokers = brokers{cfg: &p.cfg, use: "publish at", log: &p.log}
	p.limit.Store(cfg.MaxMessageBytes)
	p.metrics = newMetrics(reg, p)
	return p
}

// Publish hands m to the broker, for the configured exchange and routing key, and returns nil only when the broker has
// confirmed and routed it. It waits for room in the window, and for the confirm up to CONFIRM_TIMEOUT, unless ctx ends or the
// connection does. While nothing can be published it fails at once. m.MessageId must be set: returns are matched by it.
//
// Every error is an *Error. When it is not permanent, m may have been stored; try again with the same MessageId. The
// bytes of m are not touched any more when Publish returns.
func (p *Publisher) Publish(ctx context.Context, m amqp091.Publishing) error {
	err := p.publish(ctx, &m)
	if failure, ok := errors.AsType[*Error](err); ok {
		p.metrics.failed.WithLabelValues(string(failure.Reason)).Inc()
	}
	return err
}

func (p *Publisher) publish(ctx context.Context, m *amqp091.Publishing) error {
	if ctx.Err() != nil {
		return gaveUp(ctx, "before it was published")
	}
	if err := check(m); err != nil {
		return err
	}
	size := int64(len(m.Body))
	if err := p.fits(size); err != nil {
		return err
	}
	pass, err := p.door.enter(ctx, size)
	if err != nil {
		return err
	}
	f := &flight{pass: pass, message: m, size: size}
	if err := pass.session.send(ctx, f); err != nil {
		p.leave(f)
		return p.verdict(f, err)
	}
	p.metrics.published.Inc()
	return p.await(ctx, f)
}

// fits refuses a body that the broker would not take.
func (p *Publisher) fits(size int64) error {
	if limit := p.limit.Load(); size > limit {
		return &Error{
			Permanent: true, Reason: ReasonTooLarge,
			Err: fmt.Errorf("amqp: the message has %d bytes, and the broker takes %d", size, limit),
		}
	}
	return nil
}

// await waits for the broker's word on a flight. If that is not what ends the wait, the flight keeps its room until the
// broker's word has come after all, or never will.
func (p *Publisher) await(ctx context.Context, f *flight) error {
	clock := time.NewTimer(p.cfg.ConfirmTimeout)
	var err error
	select {
	case <-f.confirm.Done():
		clock.Stop()
		return p.counted(p.settle(f), f.size)
	case <-f.halted:
		if f.confirm.Acked() { // just in time
			clock.Stop()
			return p.counted(p.settle(f), f.size)
		}
		err = p.verdict(f, f.cause)
	case <-ctx.Done():
		err = gaveUp(ctx, "waiting for the broker's confirm")
	case <-clock.C:
		err = p.noConfirm(f)
	}
	f.message.Body, f.message.Headers = nil, nil // nobody holds them any more, so neither do we
	p.door.forsake(f.pass)
	go p.settleLater(f, clock)
	return err
}

// settleLater gives the room of a flight back when the broker's word has come, though nobody waits for that any more.
func (p *Publisher) settleLater(f *flight, clock *time.Timer) {
	defer clock.Stop()
	for {
		select {
		case <-f.confirm.Done():
			if p.settle(f) == nil { // but whoever wanted to know has gone
				p.metrics.late.Inc()
			}
			return
		case <-clock.C:
			if grace := p.door.grace(p.cfg.ConfirmTimeout); grace > 0 {
				clock.Reset(grace)
			} else {
				_ = p.noConfirm(f)
			}
		}
	}
}

// counted counts a message that somebody was told is confirmed.
func (p *Publisher) counted(err error, size int64) error {
	if err == nil {
		p.metrics.confirmed.Inc()
		p.metrics.bytes.Add(float64(size))
	}
	return err
}

// settle reads the broker's word on a flight and gives its room back.
func (p *Publisher) settle(f *flight) error {
	confirmed := f.confirm.Acked()
	returned := f.lane.land(f)
	defer p.leave(f)
	switch {
	case confirmed && returned == "":
		p.metrics.latency.Observe(time.Since(f.at).Seconds())
		if f.probe {
			p.trust()
		}
		return nil
	case confirmed:
		return p.unroutable(f, returned)
	case f.lane.channel.IsClosed(): // then the library answers no in the broker's stead
		<-f.halted
		return p.verdict(f, f.cause)
	}
	return p.doubt(trouble{
		what: "mail is refused by the broker (basic.nack: a queue that it is for is full, probably; see operations.md), one try at a time", reason: ReasonRefused,
	}, longestProbe)
}

// leave gives the room of a flight back.
func (p *Publisher) leave(f *flight) {
	if p.door.leave(f.pass) {
		f.session.fail(errMissedConfirms)
	}
}

// errMissedConfirms ends a session when nothing but overdue confirms is left of it: the next one starts clean.
var errMissedConfirms = errors.New("confirms are missing")

// noConfirm notes that a confirm did not come in time.
func (p *Publisher) noConfirm(f *flight) error {
	err := p.doubt(trouble{
		what: "mail is not confirmed by the broker within " + p.cfg.ConfirmTimeout.String() + ", one try at a time", reason: ReasonNoConfirm,
	}, longestProbe)
	if p.door.missed(f.pass) {
		f.session.fail(errMissedConfirms)
	}
	return err
}

func (p *Publisher) unroutable(f *flight, returned string) error {
	err := p.doubt(trouble{
		what: fmt.Sprintf("mail is returned by the broker, one try at a time: no queue is bound to exchange %q for routing key %q",
			p.cfg.Exchange, p.cfg.RoutingKey),
		why: returned, reason: ReasonUnroutable,
	}, longestUnroutable)
	f.session.doubt()
	return err
}

// doubt makes intake careful after a message failed that the broker may have stored in part.
func (p *Publisher) doubt(t trouble, longest time.Duration) error {
	p.door.doubts(t, longest)
	p.delivery.warn(&p.log, t.what, t.why)
	return &Error{Reason: t.reason, Err: errors.New("amqp: " + join(t.what, t.why))}
}

// trust ends the care: a try has passed.
func (p *Publisher) trust() {
	if lasted, had := p.door.trusts(); had {
		p.delivery.over(&p.log, "mail passes again", lasted)
		p.alarm.over(&p.log, "the broker's alarm is over", lasted)
	}
}

// verdict says what the end of its stretch means for one flight: the message that was too large for the broker will never
// pass, the others that went down with it will.
func (p *Publisher) verdict(f *flight, err error) error {
	if tooLarge := p.fits(f.size); tooLarge != nil {
		return tooLarge
	}
	return err
}

// sessionOver is called first of all when a session ends.
func (p *Publisher) sessionOver(s *session, err error) {
	size, tooLarge := sizeLimit(err)
	if tooLarge {
		p.limit.Store(min(size, p.cfg.MaxMessageBytes))
	}
	p.tooLarge.Store(tooLarge)
	why, _ := describe(err)
	p.door.close(trouble{what: "lost the connection to " + s.broker.address(), why: why, reason: ReasonDown})
}

// tooLargeText is how RabbitMQ words the end of a channel that carried a message over its limit.
var tooLargeText = regexp.MustCompile(`message size \d+ (?:bytes )?is larger than (?:the )?configured max size (\d+)`)

// sizeLimit reads the broker's limit out of the answer to a message that was larger.
func sizeLimit(err error) (limit int64, found bool) {
	var answer *amqp091.Error
	if !errors.As(err, &answer) || !answer.Server || answer.Code != amqp091.PreconditionFailed {
		return 0, false
	}
	words := tooLargeText.FindStringSubmatch(answer.Reason)
	if words == nil {
		return 0, false
	}
	limit, err = strconv.ParseInt(words[1], 10, 64)
	return limit, err == nil
}

// Ready returns nil when a Publish now would be tried, and otherwise an *Error that says why not. It does not block.
func (p *Publisher) Ready() error { return p.door.ready() }

// MaxMessageBytes returns the largest body that the broker is known to take: the configured limit, or less once the broker
// has told its own.
func (p *Publisher) MaxMessageBytes() int64 { return p.limit.Load() }

// State is what /readyz shows of a Publisher.
type State struct {
	OK    bool      // messages are published as they come
	Since time.Time // when that, or what keeps them from it, began
	Text  string    // in words, with for how long: "amqp: cannot reach rabbitmq:5672 for 12 s: connection refused"
}

// String returns the text.
func (s State) String() string { return s.Text }

// State returns how things are. It does not block.
func (p *Publisher) State() State {
	trouble, since := p.door.state()
	if trouble != nil {
		return State{Since: since, Text: "amqp: " + trouble.at(time.Now())}
	}
	s := State{OK: true, Since: since, Text: "amqp: publishing"}
	if word := p.backlog.Load(); word != nil {
		s.Text += "; " + *word
	}
	return s
}
