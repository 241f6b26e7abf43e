package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

const (
	// lanes is how many channels publish side by side: more win nothing.
	lanes = 4
	// alarmGrace is how long a message may go on being written after the broker has said that it will not read.
	alarmGrace = time.Second
)

// session is one connection from its first publish to its end. Whatever goes wrong ends it as a whole: after an exception
// on one channel nobody can say what became of the messages on it, and a clean start is cheap.
type session struct {
	*connection

	lanes   chan *lane   // those that are free
	busy    atomic.Int32 // lanes that are writing
	blocks  chan amqp091.Blocking
	doubted chan struct{} // a message was returned: look at the topology again
}

// flight is one message between its publish and the broker's word on it.
type flight struct {
	*pass
	message  *amqp091.Publishing
	size     int64
	lane     *lane
	confirm  *amqp091.DeferredConfirmation
	err      error     // of handing it to the library
	at       time.Time // when
	returned string    // the broker's words, when it came back; guarded by the lane's mutex
}

// lane is a channel, which belongs to whoever has taken the lane out of the session's free ones, because the library's channels are for
// one goroutine at a time. The library's reader puts a return into returns before it processes the confirm that follows it; so whoever has the confirm
// finds the return there, if there is one, provided that there is always room: each of the window's messages can be
// returned once.
type lane struct {
	channel *amqp091.Channel

	mu       sync.Mutex
	returns  chan amqp091.Return
	inFlight map[*flight]struct{}
}

// start makes the lanes. The caller closes the session, also after an error.
func (s *session) start() error {
	s.conn.NotifyBlocked(s.blocks)
	go s.watch(s.conn.NotifyClose(make(chan *amqp091.Error, 1)))
	for range lanes {
		channel, err := s.conn.Channel()
		if err != nil {
			return fmt.Errorf("open a channel: %w", err)
		}
		go s.watch(channel.NotifyClose(make(chan *amqp091.Error, 1)))
		if err := channel.Confirm(false); err != nil {
			return fmt.Errorf("ask for confirms: %w", err)
		}
		l := &lane{
			channel:  channel,
			returns:  channel.NotifyReturn(make(chan amqp091.Return, s.cfg.InFlight)),
			inFlight: make(map[*flight]struct{}, s.cfg.InFlight/lanes),
		}
		s.lanes <- l
	}
	return nil
}

// doubt asks for another look at the topology, because a message was returned.
func (s *session) doubt() {
	select {
	case s.doubted <- struct{}{}:
	default: // one is due already
	}
}

// failed ends the session because a message could not be handed to the library. A channel that the broker has closed says
// only that it is closed; watch hears why, in a moment.
func (s *session) failed(err error) {
	if errors.Is(err, amqp091.ErrClosed) {
		select {
		case <-s.ended:
		case <-time.After(closeLimit):
		}
	}
	s.fail(err)
}

func (l *lane) publish(cfg *Config, f *flight) {
	f.lane, f.at = l, time.Now()
	l.mu.Lock()
	l.inFlight[f] = struct{}{}
	l.mu.Unlock()
	// Mandatory: without it a message that no queue is bound for is confirmed and gone.
	f.confirm, f.err = l.channel.PublishWithDeferredConfirm(cfg.Exchange, cfg.RoutingKey, true, false, *f.message)
}

// land takes a flight whose confirm has come, or never will, off the lane. It returns the broker's words if the message was
// returned.
func (l *lane) land(f *flight) (returned string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for drained := false; !drained; {
		select {
		case r, ok := <-l.returns:
			if ok {
				l.mark(&r)
			} else {
				l.returns = nil
			}
		default:
			drained = true
		}
	}
	delete(l.inFlight, f)
	return f.returned
}

// mark notes a return. It carries nothing but the message itself to tell which flight it was; of several with the same id
// each may be the one, so none of them has arrived.
func (l *lane) mark(r *amqp091.Return) {
	for f := range l.inFlight {
		if f.message.MessageId == r.MessageId {
			f.returned = fmt.Sprintf("%s (%d)", r.ReplyText, r.ReplyCode)
		}
	}
}

// send hands a flight to the library, and returns when that has taken it, whole. It waits for a free lane only while the stretch lasts
// and the caller wants it.
func (s *session) send(ctx context.Context, f *flight) error {
	var l *lane
	select {
	case l = <-s.lanes:
	case <-f.halted:
		return f.cause
	case <-ctx.Done():
		return gaveUp(ctx, "waiting for a channel")
	}
	// From here on the library reads the message: its owner must not have it back sooner. Not for long: a write ends when
	// the peer takes nothing (link), an alarm ends those that last (alarmGrace), and so does the session.
	s.busy.Add(1)
	l.publish(s.cfg, f)
	s.busy.Add(-1)
	s.lanes <- l
	if f.err != nil {
		s.failed(f.err)
		f.lane.land(f)
		<-f.halted
		return f.cause
	}
	return nil
}
