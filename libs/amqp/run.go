package amqp

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// Run connects, and connects again for as long as ctx lives; there is no fault that makes it give up. When ctx has ended,
// Publish takes nothing more, what somebody still waits for has five seconds to be confirmed, and Run returns nil when the
// connection is closed, which takes a broker that does not answer one second more.
func (p *Publisher) Run(ctx context.Context) error {
	defer p.door.close(trouble{what: "not running", reason: ReasonNotRunning})
	p.door.close(trouble{what: "connecting", reason: ReasonDown})
	retry := pauses{jitter: p.jitter}
	for ctx.Err() == nil {
		s, err := p.connect(ctx)
		if ctx.Err() != nil {
			if s != nil {
				s.close()
			}
			return nil
		}
		if err != nil {
			p.away(err)
			_, slow := describe(err)
			retry.wait(ctx, slow)
			continue
		}
		lasted := p.serve(ctx, s)
		_, slow := describe(s.cause)
		switch slow = slow && !p.tooLarge.Load(); { // whoever sent too large a message has been told so
		case slow || lasted < stableAfter:
			retry.wait(ctx, slow)
		default:
			retry.tries = 0
		}
	}
	return nil
}

// away notes that no broker could be used.
func (p *Publisher) away(err error) {
	what, why := "cannot connect", err.Error()
	if f, ok := errors.AsType[*fault](err); ok {
		what, why = f.what, f.why
	}
	p.door.close(trouble{what: what, why: why, reason: ReasonDown})
	p.connection.warn(&p.log, what, why)
}

// connect returns a session on the first broker that works.
func (p *Publisher) connect(ctx context.Context) (*session, error) {
	var made *session
	err := p.brokers.connect(ctx, func(c *connection) error {
		made = &session{
			connection: c,
			lanes:      make(chan *lane, lanes),
			blocks:     make(chan amqp091.Blocking, 8),
			doubted:    make(chan struct{}, 1),
		}
		c.over = func(err error) { p.sessionOver(made, err) }
		return p.prepare(made)
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

// prepare makes a connection one that messages can be published on.
func (p *Publisher) prepare(s *session) error {
	if err := p.bind(s); err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return newFault("cannot "+s.use+" "+s.broker.address(), err)
	}
	return nil
}

// bind sees to the topology, and says once if the broker does not let us bind.
func (p *Publisher) bind(s *session) error {
	forbidden, err := s.topology(amqp091.Table{amqp091.QueueTypeArg: s.cfg.QueueType})
	if forbidden != nil && !p.forbidden.Swap(true) {
		why, _ := describe(forbidden)
		p.log.Info().Str("queue", s.cfg.Queue).Str("exchange", s.cfg.Exchange).Str("routing_key", s.cfg.RoutingKey).Str("cause", why).
			Msg("amqp: we have no right to bind the queue, so the broker's own definitions are trusted to do it")
	}
	return err
}

// serve lets messages through to a session until it ends, and tells how long it lasted.
func (p *Publisher) serve(ctx context.Context, s *session) time.Duration {
	p.welcome(s)
	began := time.Now()
	var watch sync.WaitGroup
	watch.Go(func() { p.watchBacklog(s) })
	defer watch.Wait()
	defer s.close()
	var stuck <-chan time.Time
	for blocks := s.blocks; ; {
		select {
		case b, ok := <-blocks:
			if !ok {
				blocks = nil // the connection is closing: ended follows
				continue
			}
			stuck = p.block(s, b)
		case <-stuck:
			stuck = nil
			if s.busy.Load() > 0 {
				s.fail(errors.New("the broker stopped reading within a message, because of an alarm"))
			}
		case <-s.ended:
			p.lost(s)
			return time.Since(began)
		case <-ctx.Done():
			p.drain(s)
			return time.Since(began)
		}
	}
}

// welcome opens the door to a new session.
func (p *Publisher) welcome(s *session) {
	p.metrics.connections.Inc()
	if !p.tooLarge.Load() {
		p.limit.Store(p.cfg.MaxMessageBytes) // the broker may have been given another limit while it was away
	}
	_, since := p.door.state()
	p.door.open(s)
	event := p.log.Info().Str("broker", s.broker.address()).Str("vhost", s.broker.vhost)
	if p.connection.clear() {
		event = event.Dur("after", time.Since(since))
	}
	event.Msg("amqp: connected")
}

// lost reports the end of a session that nobody wanted. It shuts the door once more, which may have been opened since.
func (p *Publisher) lost(s *session) {
	why, _ := describe(s.cause)
	p.door.close(trouble{what: "lost the connection to " + s.broker.address(), why: why, reason: ReasonDown})
	p.connection.warn(&p.log, "lost the connection to "+s.broker.address(), why)
}

// block shuts and opens the door as the broker raises and clears alarms. It returns a clock that tells when a message that is
// still being written has no more hope.
func (p *Publisher) block(s *session, b amqp091.Blocking) <-chan time.Time {
	s.wire.link.patient.Store(b.Active)
	if b.Active {
		p.door.close(trouble{what: "the broker has an alarm", why: b.Reason, reason: ReasonAlarm})
		p.alarm.warn(&p.log, "the broker has an alarm and takes nothing", b.Reason)
		return time.After(alarmGrace)
	}
	_, since := p.door.state()
	p.door.open(s)
	p.alarm.over(&p.log, "the broker's alarm is over", time.Since(since))
	return nil
}

// drain takes nothing more and waits a little for the confirms that somebody waits for.
func (p *Publisher) drain(s *session) {
	if p.door.alarmed() {
		return // there will be none
	}
	stopping := trouble{what: "stopping", reason: ReasonNotRunning}
	idle := p.door.closing(stopping)
	defer p.door.close(stopping)
	grace := time.NewTimer(p.stopGrace)
	defer grace.Stop()
	select {
	case <-idle:
	case <-grace.C:
	case <-s.ended:
	}
}
