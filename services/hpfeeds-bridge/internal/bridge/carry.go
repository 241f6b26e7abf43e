package bridge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/hpfeeds"
)

const (
	// gather is how long mails are written before they are confirmed together, while others are on their way.
	gather = 2 * time.Millisecond
	// look is how often the kernel is asked what the broker's machine has not got yet.
	look = time.Millisecond
	// watch is how often it is looked whether anything moves.
	watch = time.Second
	// stopLimit is how long a stop waits for what is on its way.
	stopLimit = 5 * time.Second
	// heldLimit is for how long suspects are held back, with no other mail to tell whether it is they or the broker.
	heldLimit = 30 * time.Second
)

// mail is one that is on its way.
type mail struct {
	id   string
	tag  uint64
	size int
	at   time.Time
}

// batch is mails that were written one after the other and are confirmed together.
type batch struct {
	stint   *amqp.Stint
	mails   []mail
	bytes   int64
	token   uint64    // fence: published after them
	sealed  time.Time // when the token was sent
	end     int64     // drained: pipe.written, after them
	through time.Time // drained: when the broker's machine had all of it
}

// flow is the use of one pipe. Batches follow each other on it without waiting: while the proof of one travels, the next is written. So the size of
// a batch adapts: it grows with what comes in while an earlier proof is on its way.
type flow struct {
	*Bridge
	pipe  *pipe
	limit int64 // largest payload

	stint    *amqp.Stint
	in       <-chan amqp091.Delivery
	pending  map[uint64]struct{} // deliveries of the stint that are acknowledged alone: no batch may acknowledge them with its own
	held     []amqp091.Delivery  // suspects
	heldAt   time.Time           // when the first of them was held back
	writing  batch
	began    time.Time // the first mail of writing came
	sent     []batch   // not confirmed, oldest first
	spare    [][]mail  // to write in next
	onWay    int       // mails in writing and sent
	alone    []byte    // the only mail on its way
	moved    time.Time // when something did last
	unsent   int       // at the last look
	stopping bool
	clock    *time.Timer

	burials int
	buried  chan burial
	buriers sync.WaitGroup
	halt    context.CancelFunc
	burying context.Context //nolint:containedctx // of the burials, which end with the flow
}

// carry takes mails out of the queue and publishes them, until the pipe fails or ctx has ended and nothing is on its way any more.
func (b *Bridge) carry(ctx context.Context, p *pipe) error {
	f := &flow{
		Bridge: b, pipe: p, limit: b.payloadLimit(), pending: make(map[uint64]struct{}), moved: time.Now(),
		clock: time.NewTimer(time.Hour), buried: make(chan burial, maxBurials),
	}
	f.burying, f.halt = context.WithCancel(ctx)
	defer f.clock.Stop()
	err := f.run(ctx)
	f.halt()
	f.buriers.Wait()
	f.pipe.close()
	if f.onWay > 0 {
		b.metrics.unconfirmed.Add(float64(f.onWay))
		b.suspects.failed(err, f.onWay, f.alone)
	}
	return err
}

// payloadLimit is what every channel takes.
func (b *Bridge) payloadLimit() int64 {
	limit := b.feed.PayloadLimit(b.feed.Channels[0])
	for _, channel := range b.feed.Channels[1:] {
		limit = min(limit, b.feed.PayloadLimit(channel))
	}
	return limit
}

func (f *flow) run(ctx context.Context) error {
	stop := ctx.Done()
	var late <-chan time.Time
	for {
		f.arm()
		var err error
		select {
		case s := <-f.source.Stints():
			err = f.begin(s)
		case d, ok := <-f.intake():
			err = f.takeAll(ctx, d, ok)
		case token := <-f.pipe.tokens:
			err = f.back(token)
		case x := <-f.buried:
			f.settle(x)
		case <-f.clock.C:
			err = f.tick(ctx)
		case <-f.pipe.Done():
			err = f.pipe.Err()
		case <-f.pipe.fate():
			err = f.pipe.echo.Err()
		case <-stop:
			stop, f.stopping = nil, true
			timer := time.NewTimer(stopLimit)
			defer timer.Stop()
			late = timer.C
			err = f.seal()
		case <-late:
			return nil
		}
		if err != nil || (f.stopping && f.onWay == 0) {
			return err
		}
	}
}

// arm sets the clock to when there is something to do or to look at.
func (f *flow) arm() {
	next := idleLimit
	switch {
	case f.pipe.echo == nil && len(f.sent) > 0:
		next = look
	case len(f.writing.mails) > 0:
		next = gather
	case f.onWay > 0 || len(f.held) > 0 || len(f.sent) > 0:
		next = watch
	}
	f.clock.Reset(next)
}

// intake is where mails come from, nil while none is wanted.
func (f *flow) intake() <-chan amqp091.Delivery {
	if f.room() {
		return f.in
	}
	return nil
}

func (f *flow) room() bool {
	return !f.stopping && f.burials < maxBurials && (f.suspects.careful == 0 || f.onWay == 0)
}

// begin changes to a new stint. What is on its way belongs to the one before, and its acknowledgement will do nothing.
func (f *flow) begin(s *amqp.Stint) error {
	err := f.seal()
	f.stint, f.in = s, s.Deliveries()
	clear(f.pending)
	f.held = nil
	return err
}

// takeAll takes a mail and whatever else is there already.
func (f *flow) takeAll(ctx context.Context, d amqp091.Delivery, ok bool) error {
	for {
		if !ok { // the stint has ended, and the next will come
			f.in, f.held = nil, nil
			return f.seal()
		}
		if err := f.take(ctx, &d); err != nil {
			return err
		}
		if !f.room() {
			break
		}
		select {
		case d, ok = <-f.in:
			continue
		default:
		}
		break
	}
	if len(f.sent) == 0 || f.suspects.careful > 0 {
		return f.seal() // nothing to wait for
	}
	return nil
}

// take writes one mail, or sees to it that it gets where mails go that cannot be written.
func (f *flow) take(ctx context.Context, d *amqp091.Delivery) error {
	payload, unfit := f.payload(d)
	switch {
	case errors.Is(unfit, errEmpty):
		f.bury(d, verdict{ReasonEmpty, unfit.Error()})
		return nil
	case unfit != nil:
		f.bury(d, verdict{ReasonEnvelope, unfit.Error()})
		return nil //nolint:nilerr // that is what becomes of it
	case int64(len(payload)) > f.limit:
		f.oversize(d, len(payload))
		return nil
	case f.suspects.suspected(d.Body):
		f.hold(d)
		return nil
	}
	return f.write(ctx, d, payload)
}

func (f *flow) write(ctx context.Context, d *amqp091.Delivery, payload []byte) error {
	if err := f.renew(ctx); err != nil {
		return err
	}
	f.alone = nil
	if f.onWay == 0 {
		f.alone, f.moved = d.Body, time.Now()
	}
	f.onWay++ // from its first byte on
	for _, channel := range f.feed.Channels {
		if err := f.pipe.Publish(channel, payload); err != nil {
			return err
		}
		f.pipe.written += int64(len(payload))
	}
	f.metrics.published.Inc()
	w := &f.writing
	if len(w.mails) == 0 {
		f.began = time.Now()
		w.stint, w.bytes, w.through = f.stint, 0, time.Time{}
		if n := len(f.spare); n > 0 {
			w.mails, f.spare = f.spare[n-1][:0], f.spare[:n-1]
		}
	}
	w.mails = append(w.mails, mail{d.MessageId, d.DeliveryTag, len(d.Body), time.Now()})
	w.bytes += int64(len(d.Body))
	if len(w.mails) >= max(1, f.cfg.Prefetch/4) || w.bytes >= f.cfg.Memory/4 {
		return f.seal()
	}
	return nil
}

// renew makes a new connection in the place of one that has been idle for so long that a proxy may have cut it; a fence would notice that. The
// mails that come meanwhile wait.
func (f *flow) renew(ctx context.Context) error {
	if f.pipe.echo != nil || f.onWay > 0 || f.pipe.Idle() < idleLimit {
		return nil
	}
	p, err := f.openDrained(ctx)
	if err != nil {
		return err
	}
	f.pipe.close()
	f.pipe = p
	f.metrics.connections.Inc()
	f.log.Debug().Msg("hpfeeds: connected anew after an idle time")
	return nil
}

// seal ends the batch that is being written and sends all of it, with what proves later that it has arrived.
func (f *flow) seal() error {
	if len(f.writing.mails) == 0 {
		return nil
	}
	next := f.writing
	f.writing.mails = nil
	f.sent = append(f.sent, next)
	f.setFlying(f.onWay)
	last := &f.sent[len(f.sent)-1]
	var err error
	if f.pipe.echo == nil {
		last.end = f.pipe.written
		return f.pipe.Flush()
	}
	last.sealed = time.Now()
	last.token, err = f.pipe.token()
	return err
}

// back confirms what was published before a token that has come back.
func (f *flow) back(token uint64) error {
	for len(f.sent) > 0 && f.sent[0].token <= token {
		f.metrics.fence.Observe(time.Since(f.sent[0].sealed).Seconds())
		f.pass()
	}
	if len(f.sent) == 0 {
		return f.seal()
	}
	return nil
}

// tick does what is due.
func (f *flow) tick(ctx context.Context) error {
	now := time.Now()
	if len(f.writing.mails) > 0 && now.Sub(f.began) >= gather {
		if err := f.seal(); err != nil {
			return err
		}
	}
	switch {
	case len(f.sent) > 0:
		return f.lookAtSent(now)
	case len(f.held) > 0 && f.onWay == 0 && now.Sub(f.heldAt) > heldLimit:
		return f.release(ctx)
	case f.pipe.echo != nil && f.pipe.Idle() >= idleLimit:
		token, err := f.pipe.token() // keeps both connections in use, and shows that they are alive
		f.sent, f.moved = append(f.sent, batch{token: token, sealed: now}), now
		return err
	}
	return nil
}

// lookAtSent asks the kernel what has arrived at the broker's machine. Without a fence that is the proof.
func (f *flow) lookAtSent(now time.Time) error {
	unsent, err := f.pipe.Unsent()
	if err != nil {
		return err
	}
	if unsent < f.unsent {
		f.moved = now
	}
	f.unsent = unsent
	if f.pipe.echo == nil {
		for i := range f.sent {
			if b := &f.sent[i]; b.through.IsZero() && f.pipe.written-b.end >= int64(unsent) {
				b.through = now
			}
		}
		for len(f.sent) > 0 && !f.sent[0].through.IsZero() && now.Sub(f.sent[0].through) >= f.pipe.patience() {
			f.pipe.proven = true
			f.pass()
		}
	}
	if now.Sub(f.moved) > stalledLimit && len(f.sent) > 0 {
		return &hpfeeds.Error{Reason: hpfeeds.ReasonSilent, Err: fmt.Errorf("hpfeeds: %s has got mail and shows no sign of it for %s", f.feed.Address(), stalledLimit)}
	}
	return nil
}

// pass acknowledges the oldest batch.
func (f *flow) pass() {
	b := f.sent[0]
	f.sent = f.sent[1:]
	now := time.Now()
	f.moved = now
	if len(b.mails) == 0 {
		return // a token that kept the connection in use
	}
	if f.mayAckThrough(&b) {
		b.stint.AckThrough(b.mails[len(b.mails)-1].tag)
	} else {
		for i := range b.mails {
			b.stint.Ack(b.mails[i].tag)
		}
	}
	f.retry.Admitted()
	f.metrics.confirmed.Add(float64(len(b.mails)))
	for i := range b.mails {
		m := &b.mails[i]
		took := now.Sub(m.at)
		f.metrics.latency.Observe(took.Seconds())
		f.log.Info().Str("message_id", m.id).Int("size", m.size).Dur("took", took).Msg("bridged")
	}
	f.onWay -= len(b.mails)
	f.setFlying(f.onWay)
	f.spare = append(f.spare, b.mails)
	if f.alone != nil && f.onWay == 0 {
		f.suspects.passed(f.alone)
		f.alone = nil
	}
	f.condemn()
}

// mayAckThrough tells whether nothing before the end of a batch is acknowledged elsewhere.
func (f *flow) mayAckThrough(b *batch) bool {
	if b.stint != f.stint {
		return true // it has ended
	}
	last := b.mails[len(b.mails)-1].tag
	for tag := range f.pending {
		if tag < last {
			return false
		}
	}
	return true
}

// hold keeps a suspect back until another mail has passed.
func (f *flow) hold(d *amqp091.Delivery) {
	if len(f.held) == 0 {
		f.heldAt = time.Now()
	}
	f.held = append(f.held, *d)
	f.pending[d.DeliveryTag] = struct{}{}
}

// release tries a suspect again, because no other mail has come that could tell.
func (f *flow) release(ctx context.Context) error {
	d := f.held[0]
	f.held, f.heldAt = f.held[1:], time.Now()
	delete(f.pending, d.DeliveryTag)
	payload, err := f.payload(&d)
	if err != nil {
		return err // cannot be: it had one
	}
	if err := f.write(ctx, &d, payload); err != nil {
		return err
	}
	return f.seal()
}

// condemn gives up the suspects, because another mail has passed: it is not the broker, it is they.
func (f *flow) condemn() {
	for i := range f.held {
		f.bury(&f.held[i], verdict{ReasonRefused, fmt.Sprintf("alone on %d connections that failed, while other mail passes; the last time: %v", strikes, f.suspects.cause)})
	}
	f.held = nil
}

func (f *flow) oversize(d *amqp091.Delivery, size int) {
	v := verdict{ReasonOversize, fmt.Sprintf("%d bytes to publish, and the hpfeeds broker takes %d (HPFEEDS_MAX_PAYLOAD)", size, f.limit)}
	if f.cfg.Oversize == oversizeDeadLetter {
		f.bury(d, v)
		return
	}
	f.metrics.dropped.Inc()
	f.log.Warn().Str("message_id", d.MessageId).Str("reason", v.reason).Str("detail", v.detail).Msg("dropped")
	f.stint.Ack(d.DeliveryTag)
}

// bury has a mail put into the dead-letter queue. It is acknowledged when it is there.
func (f *flow) bury(d *amqp091.Delivery, v verdict) {
	f.pending[d.DeliveryTag] = struct{}{}
	f.burials++
	stint, letter := f.stint, *d
	f.buriers.Go(func() { f.Bridge.bury(f.burying, stint, &letter, v, f.buried) })
}

// settle acknowledges a mail that is in the dead-letter queue.
func (f *flow) settle(x burial) {
	f.burials--
	x.stint.Ack(x.tag)
	if x.stint == f.stint {
		delete(f.pending, x.tag)
	}
	f.suspects.forget(x.body)
	f.metrics.dead.WithLabelValues(x.reason).Inc()
	f.log.Warn().Str("message_id", x.id).Str("reason", x.reason).Str("detail", x.detail).Msg("dead_lettered")
}
