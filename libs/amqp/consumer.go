package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"
)

// holdLimit is how long a delivery may be held. The broker's own limit is 30 minutes; it closes the channel then, and says so in its log as an
// error of ours.
const holdLimit = 20 * time.Minute

// Source says what a Consumer consumes. The exchange, the routing key, the type of the queue and the broker are in Config.
type Source struct {
	// Queue is a durable queue, declared when it is absent and bound to the exchange.
	Queue string
	// DeadLetter is the exchange that the broker gives a message to that it has delivered DeliveryLimit times; with "" such a message is gone. It
	// counts only where we declare the queue, and is not declared here.
	DeadLetter string
	// Prefetch is how many messages may be held at once.
	Prefetch int
	// Bytes is how many bytes of messages may be held at once. One that is larger comes alone.
	Bytes int64
}

// DeliveryLimit is how often a message may come that is never acknowledged, in a queue that we declare. RabbitMQ 4 has 20 unless told otherwise, and
// counts each return: so few that a day on which connections break often enough would take good messages out of the queue.
const DeliveryLimit = 1000

// declaration is what the queue is declared with. With at-least-once a dead letter stays in the queue until the other has it, which RabbitMQ has only
// together with reject-publish; without a length limit, and we set none, that refuses nothing.
func (s *Source) declaration(kind string) amqp091.Table {
	args := amqp091.Table{amqp091.QueueTypeArg: kind}
	if s.DeadLetter != "" {
		args["x-dead-letter-exchange"] = s.DeadLetter
	}
	if kind == "quorum" {
		args["x-delivery-limit"] = DeliveryLimit
		if s.DeadLetter != "" {
			args["x-dead-letter-strategy"], args["x-overflow"] = "at-least-once", "reject-publish"
		}
	}
	return args
}

// Consumer consumes from one queue over one connection, which it makes again for as long as it runs.
//
// The promise: a message is acknowledged when its user says so, by Stint.Ack, and never otherwise. When anything goes wrong with the connection, the
// channel or the queue, and when consuming is paused, the stint ends as a whole and the broker has back what was not acknowledged,
// once. Nothing is ever sent back to be delivered again at once: a quorum queue counts that, and gives a message up in the end.
//
// All methods may be called from any number of goroutines.
type Consumer struct {
	cfg     Config
	source  Source
	log     zerolog.Logger
	metrics *consumerMetrics

	stints  chan *Stint
	paused  atomic.Bool
	turned  chan struct{} // paused has changed
	current atomic.Pointer[Stint]

	mu       sync.Mutex
	trouble  *trouble // what keeps messages from coming; nil: nothing does
	since    time.Time
	messages int // in the queue at the last look

	forbidden  bool    // it has been said that we may not bind; like brokers, Run's goroutine's own
	brokers    brokers // where connections come from
	connection notice

	depthEvery time.Duration
	holdLimit  time.Duration
	jitter     func(time.Duration) time.Duration
}

// NewConsumer returns a consumer that does not connect before Run, and that is paused until Resume is called: it then has
// its queue declared and bound, but takes nothing out. It registers its metrics with reg, so a registry takes one consumer. cfg must be valid.
func NewConsumer(cfg Config, source Source, log zerolog.Logger, reg prometheus.Registerer) *Consumer {
	cfg.Queue = source.Queue
	c := &Consumer{
		cfg:        cfg,
		source:     source,
		log:        log,
		stints:     make(chan *Stint),
		turned:     make(chan struct{}, 1),
		trouble:    &trouble{what: "not running", since: time.Now()},
		depthEvery: 5 * time.Second,
		holdLimit:  holdLimit,
		jitter:     fullJitter,
	}
	c.paused.Store(true)
	c.brokers = brokers{
		cfg: &c.cfg, use: "consume at", log: &c.log,
		gate: func() *gate { return newGate(source.Bytes) },
	}
	c.metrics = newConsumerMetrics(reg, c)
	return c
}

// Stints returns where each time begins for which messages come without interruption. A stint that nobody takes does no harm.
func (c *Consumer) Stints() <-chan *Stint { return c.stints }

// Pause stops consuming: the present stint ends, and the broker has back what is not acknowledged. It does not wait for that.
// The connection is made again, so that the queue stays declared, bound and looked at.
func (c *Consumer) Pause() { c.turn(true) }

// Resume goes on consuming.
func (c *Consumer) Resume() { c.turn(false) }

func (c *Consumer) turn(paused bool) {
	if c.paused.Swap(paused) == paused {
		return
	}
	select {
	case c.turned <- struct{}{}:
	default: // it has not been looked at yet
	}
}

// State returns how things are. It does not block. OK means that the queue can be reached; a consumer that is paused is well.
func (c *Consumer) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trouble != nil {
		return State{Since: c.trouble.since, Text: "amqp: " + c.trouble.at(time.Now())}
	}
	doing := "consuming from"
	if c.paused.Load() {
		doing = "not consuming from"
	}
	return State{OK: true, Since: c.since, Text: fmt.Sprintf("amqp: %s queue %q, %d messages wait in it", doing, c.source.Queue, c.messages)}
}

// well notes that the queue can be reached, and returns for how long it could not.
func (c *Consumer) well() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.since
	if c.trouble != nil {
		before = c.trouble.since
	}
	c.trouble, c.since = nil, time.Now()
	return c.since.Sub(before)
}

// unwell notes what keeps messages from coming. The time counts from when the first such thing began.
func (c *Consumer) unwell(what, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &trouble{what: what, why: why, since: time.Now()}
	if c.trouble != nil && c.trouble.what != "not running" {
		t.since = c.trouble.since
	}
	c.trouble = t
}

// Run connects, and connects again for as long as ctx lives; there is no fault that makes it give up. When ctx has ended, what is
// not acknowledged goes back to the broker, and Run returns nil when the connection is closed, which takes a broker that does not answer one second
// more.
func (c *Consumer) Run(ctx context.Context) error {
	defer c.unwell("not running", "")
	c.unwell("connecting", "")
	retry := pauses{jitter: c.jitter}
	for ctx.Err() == nil {
		conn, err := c.connect(ctx)
		if ctx.Err() != nil {
			if conn != nil {
				conn.close()
			}
			return nil
		}
		if err != nil {
			what, why := "cannot connect", err.Error()
			if f, ok := errors.AsType[*fault](err); ok {
				what, why = f.what, f.why
			}
			c.report(what, why)
			_, slow := describe(err)
			retry.wait(ctx, slow)
			continue
		}
		began := time.Now()
		err = c.serve(ctx, conn)
		conn.close()
		switch _, slow := describe(err); {
		case ctx.Err() != nil, errors.Is(err, errPaused):
			retry.tries = 0
		case slow || time.Since(began) < stableAfter:
			retry.wait(ctx, slow)
		default:
			retry.tries = 0
		}
	}
	return nil
}

// report says what keeps messages from coming.
func (c *Consumer) report(what, why string) {
	c.unwell(what, why)
	c.connection.warn(&c.log, what, why)
}

// connect returns a connection to the first broker that works, with everything there to consume from.
func (c *Consumer) connect(ctx context.Context) (*connection, error) {
	var made *connection
	err := c.brokers.connect(ctx, func(conn *connection) error {
		made = conn
		go conn.watch(conn.conn.NotifyClose(make(chan *amqp091.Error, 1)))
		return c.declare(conn)
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

// declare sees to the topology, and says once if the broker does not let us bind.
func (c *Consumer) declare(conn *connection) error {
	forbidden, err := conn.topology(c.source.declaration(c.cfg.QueueType))
	if forbidden != nil && !c.forbidden {
		c.forbidden = true
		why, _ := describe(forbidden)
		c.log.Info().Str("queue", c.cfg.Queue).Str("exchange", c.cfg.Exchange).Str("routing_key", c.cfg.RoutingKey).Str("cause", why).
			Msg("amqp: we have no right to bind the queue, so the broker's own definitions are trusted to do it")
	}
	return err
}

var (
	errPaused    = errors.New("consuming is paused")
	errCancelled = errors.New("the queue was deleted, or its leader is gone (basic.cancel)")
)

// serve consumes over one connection, or only watches the queue while consuming is paused, until the connection has to end. It returns why.
func (c *Consumer) serve(ctx context.Context, conn *connection) error {
	c.metrics.connections.Inc()
	away := c.well()
	event := c.log.Info().Str("broker", conn.broker.address()).Str("vhost", conn.broker.vhost).Str("queue", c.source.Queue)
	if c.connection.clear() {
		event = event.Dur("after", away)
	}
	event.Msg("amqp: connected")

	var watch sync.WaitGroup
	watch.Go(func() { c.watchDepth(conn) })
	defer watch.Wait()
	defer func() { conn.fail(amqp091.ErrClosed) }()
	for c.paused.Load() {
		select {
		case <-c.turned:
		case <-conn.ended:
			return c.lost(conn)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return c.consume(ctx, conn)
}

// consume is one stint.
func (c *Consumer) consume(ctx context.Context, conn *connection) error {
	s, err := c.begin(conn)
	if err != nil {
		conn.fail(err)
		return c.lost(conn)
	}
	defer c.end(s)
	ticker := time.NewTicker(c.holdLimit / 10)
	defer ticker.Stop()
	for offer := c.stints; ; {
		select {
		case offer <- s:
			offer = nil
		case <-c.turned:
			if c.paused.Load() {
				return errPaused
			}
		case _, cancelled := <-s.cancelled:
			if !cancelled { // closed with the channel, and that has another reason
				s.cancelled = nil
				continue
			}
			conn.fail(errCancelled)
			return c.lost(conn)
		case <-ticker.C:
			if held := s.gate.oldest(); held > c.holdLimit {
				conn.fail(fmt.Errorf("a message was held for %s, so it goes back", held.Round(time.Second)))
				return c.lost(conn)
			}
		case <-conn.ended:
			return c.lost(conn)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lost reports the end of a connection that nobody wanted.
func (c *Consumer) lost(conn *connection) error {
	<-conn.ended
	what := "lost the connection to " + conn.broker.address()
	switch f, ok := errors.AsType[*fault](conn.cause); {
	case ok:
		what = f.what
	case errors.Is(conn.cause, errCancelled):
		what = fmt.Sprintf("cannot consume from queue %q", c.source.Queue)
	}
	why, _ := describe(conn.cause)
	c.report(what, why)
	return conn.cause
}

// begin has the broker send messages.
func (c *Consumer) begin(conn *connection) (*Stint, error) {
	channel, err := conn.conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open a channel: %w", err)
	}
	cancelled := channel.NotifyCancel(make(chan string, 1))
	refused := channel.NotifyClose(make(chan *amqp091.Error, 1))
	if err := channel.Qos(c.source.Prefetch, 0, false); err != nil {
		return nil, fmt.Errorf("set the prefetch: %w", err)
	}
	deliveries, err := channel.Consume(c.source.Queue, "", false, false, false, false, nil)
	if err != nil {
		return nil, conn.topologyFault(fmt.Sprintf("consume from queue %q", c.source.Queue),
			fmt.Sprintf("user %q lacks the right to read it", conn.broker.user), err)
	}
	go conn.watch(refused)
	s := &Stint{broker: channel, deliveries: deliveries, cancelled: cancelled, gate: conn.wire.gate, acked: c.metrics.acked}
	c.current.Store(s)
	return s, nil
}

// end makes the stint's acks void, and takes from the library what nobody will.
func (c *Consumer) end(s *Stint) {
	c.current.Store(nil)
	s.over.Store(true)
	go func() {
		for d := range s.deliveries {
			_ = d // the library would keep them in memory until the connection is closed
		}
	}()
}

// watchDepth looks at the queue now and then until the connection ends. One that somebody has deleted is declared again.
func (c *Consumer) watchDepth(conn *connection) {
	ticker := time.NewTicker(c.depthEvery)
	defer ticker.Stop()
	ask := &scratch{conn: conn.conn}
	for {
		found, err := conn.lookUp(ask, c.source.Queue)
		switch {
		case answered(err, amqp091.NotFound):
			conn.fail(newFault(fmt.Sprintf("cannot consume from queue %q", c.source.Queue), errors.New("it was deleted")))
			return
		case err != nil:
			conn.fail(conn.topologyFault(fmt.Sprintf("look at queue %q", c.source.Queue), "", err))
			return
		}
		c.mu.Lock()
		c.messages = found.Messages
		c.mu.Unlock()
		select {
		case <-ticker.C:
		case <-conn.ended:
			return
		}
	}
}

// load returns how much is held.
func (c *Consumer) load() (count int, bytes int64) {
	if s := c.current.Load(); s != nil {
		return s.gate.load()
	}
	return 0, 0
}

// Stint is a time for which messages come from the queue without interruption. Its delivery tags mean nothing outside of it, and
// once it has ended its messages belong to the broker again: whoever holds some drops them, for they will come once more.
type Stint struct {
	broker     amqp091.Acknowledger
	deliveries <-chan amqp091.Delivery
	cancelled  <-chan string
	gate       *gate              // nil: nobody counts
	acked      prometheus.Counter // as well
	over       atomic.Bool
}

// NewStint returns a stint of deliveries from elsewhere than a Consumer, for the tests of who works with them; what is acknowledged goes to broker.
func NewStint(deliveries <-chan amqp091.Delivery, broker amqp091.Acknowledger) *Stint {
	return &Stint{broker: broker, deliveries: deliveries}
}

// Deliveries returns the messages, in order. It is closed when the stint has ended.
func (s *Stint) Deliveries() <-chan amqp091.Delivery { return s.deliveries }

// Ack acknowledges one delivery. In a stint that has ended it does nothing: the message comes again. It does not wait for
// the broker, to which AMQP's acknowledgements are news and no question.
func (s *Stint) Ack(tag uint64) { s.ack(tag, false) }

// AckThrough acknowledges a delivery and all before it that have not been. It is like Ack otherwise.
func (s *Stint) AckThrough(tag uint64) { s.ack(tag, true) }

func (s *Stint) ack(tag uint64, allBefore bool) {
	if s.over.Load() {
		return
	}
	if err := s.broker.Ack(tag, allBefore); err != nil || s.gate == nil {
		return // with an error the channel is closed, which ends the stint
	}
	s.acked.Add(float64(s.gate.settle(tag, allBefore)))
}

// consumerMetrics are the families of one consumer, spamtraps_amqp_….
type consumerMetrics struct {
	acked       prometheus.Counter
	connections prometheus.Counter
}

func newConsumerMetrics(reg prometheus.Registerer, c *Consumer) *consumerMetrics {
	const namespace, subsystem = "spamtraps", "amqp"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	gauge := func(name, help string, value func() float64) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}, value)
	}
	m := &consumerMetrics{
		acked:       counter("acked_total", "Messages that were acknowledged to the broker."),
		connections: counter("consumer_connections_total", "Connections made to a broker to consume."),
	}
	reg.MustRegister(
		m.acked, m.connections,
		gauge("unacked", "Messages that are held, not yet acknowledged.", func() float64 { count, _ := c.load(); return float64(count) }),
		gauge("unacked_bytes", "Bytes of messages that are held, not yet acknowledged.", func() float64 { _, bytes := c.load(); return float64(bytes) }),
		gauge("queue_messages", "Messages that wait in the queue, as last seen.", func() float64 {
			c.mu.Lock()
			defer c.mu.Unlock()
			return float64(c.messages)
		}),
		gauge("unacked_limit_bytes", "The most bytes of messages that are held at once.", func() float64 { return float64(c.source.Bytes) }),
		gauge("consumer_state_since_timestamp_seconds", "When spamtraps_amqp_consumer_ready became what it is.", func() float64 { return unixSeconds(c.State().Since) }),
		gauge("consumer_ready", "Whether the queue can be reached (1) or not (0).", func() float64 {
			if c.State().OK {
				return 1
			}
			return 0
		}),
	)
	return m
}
