package amqp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"
)

// closeLimit is how long the broker may take to answer our goodbye.
const closeLimit = time.Second

// connection is one open AMQP connection, from its setup to its end, which comes once and for one reason.
type connection struct {
	cfg    *Config
	use    string // what it is for: "publish at", "consume at"
	broker broker
	conn   *amqp091.Connection
	wire   *wire

	over  func(error) // told why the connection ends, once, before ended is closed; may be nil
	once  sync.Once
	ended chan struct{}
	cause error // why; set before ended is closed
}

// brokers is where connections are made: those of the configuration in turn, beginning behind the one that was lost. It belongs to
// one goroutine.
type brokers struct {
	cfg    *Config
	use    string
	log    *zerolog.Logger
	gate   func() *gate // makes that of a connection; nil: they have none
	next   int          // broker to try first
	warned bool         // that certificates are not verified
}

// connect tries each broker once, and returns a connection to the first that works and that prepare makes ready. That has the
// whole of setupLimit for it; when ctx ends it is cut short.
func (b *brokers) connect(ctx context.Context, prepare func(*connection) error) error {
	list, err := b.cfg.brokers()
	if err != nil {
		return newFault("cannot connect", err)
	}
	var faults []*fault
	for i := range list {
		at := (b.next + i) % len(list)
		err := b.try(ctx, list[at], prepare)
		if err == nil {
			b.next = at + 1
			return nil
		}
		f, ok := errors.AsType[*fault](err)
		if !ok {
			f = newFault("cannot use "+list[at].address(), err)
		}
		faults = append(faults, f)
	}
	return merge(faults)
}

// merge makes one fault of those that the brokers of a list had. It is slow only if all are.
func merge(faults []*fault) *fault {
	if len(faults) == 1 {
		return faults[0]
	}
	all := &fault{what: "cannot use any broker", slow: true}
	var words []string
	for _, f := range faults {
		words = append(words, f.Error())
		all.slow = all.slow && f.slow
		all.cause = f
	}
	all.why = strings.Join(words, "; ")
	return all
}

// try connects to one broker and has the connection made ready.
func (b *brokers) try(ctx context.Context, to broker, prepare func(*connection) error) error {
	if to.tls && !b.cfg.CheckCert && !b.warned {
		b.warned = true
		b.log.Warn().Msg("amqp: the broker's certificate is not verified (AMQP_CHECK_CERT)")
	}
	ctx, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	var gate *gate
	if b.gate != nil {
		gate = b.gate()
	}
	conn, wire, err := dial(ctx, b.cfg, to, gate)
	if err != nil {
		return err
	}
	c := &connection{cfg: b.cfg, use: b.use, broker: to, conn: conn, wire: wire, ended: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { wire.cut(fmt.Errorf("setting up took more than %s", setupLimit)) })
	defer stop()
	if err := prepare(c); err != nil {
		c.close()
		return err
	}
	return nil
}

// watch ends the connection when the library reports its end, or that of a channel.
func (c *connection) watch(closed <-chan *amqp091.Error) {
	if err := <-closed; err != nil { // nil: it was closed by us
		c.fail(err)
	} else {
		c.fail(amqp091.ErrClosed)
	}
}

// fail ends the connection. Whoever uses it learns of that before fail returns; it is closed by whoever runs it.
func (c *connection) fail(err error) {
	c.once.Do(func() {
		answer, ok := errors.AsType[*amqp091.Error](err)
		if broken := c.wire.cause(); broken != nil && (!ok || !answer.Server) {
			err = broken // the library says only that it could not read
		}
		c.cause = err
		if c.over != nil {
			c.over(err)
		}
		close(c.ended)
	})
}

// close says goodbye, if that is still possible, and returns when nothing of the connection is left.
func (c *connection) close() {
	c.fail(amqp091.ErrClosed)
	if c.wire.gate != nil {
		c.wire.gate.wave() // or the broker's goodbye could not be read
	}
	cut := time.AfterFunc(closeLimit, func() { c.wire.cut(errors.New("the broker did not answer our goodbye")) })
	defer cut.Stop()
	_ = c.conn.Close() // the library returns what we know, or that we knew it
}
