package collector

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/amqp"
)

// lookEvery is how often the publisher is asked whether it is ready again, while somebody waits for that.
const lookEvery = 100 * time.Millisecond

// errBrokerAway is why a mail was given up when we were told to stop while the broker took nothing.
var errBrokerAway = errors.New("the broker takes nothing now")

// gate stands before the publisher. A mail that was fetched is not fetched again because the broker is away for a while: it waits here. After a failure one
// mail at a time is tried, until one passes.
type gate struct {
	publisher Publisher

	mu     sync.Mutex
	inside int           // mails
	closed chan struct{} // closed when mails pass again; nil while they do, or when nobody is inside
	turn   chan struct{} // has the one that tries
}

func newGate(publisher Publisher) *gate {
	return &gate{publisher: publisher, turn: make(chan struct{}, 1)}
}

// publish returns nil when the broker has the mail, and otherwise an error when it never will, when stop ends while the broker takes nothing, or
// when ctx ends.
func (g *gate) publish(ctx context.Context, stop <-chan struct{}, m amqp091.Publishing) error {
	g.count(1)
	defer g.count(-1)
	for {
		mine, err := g.enter(ctx, stop)
		if err != nil {
			return err
		}
		err = g.publisher.Publish(ctx, m)
		failure, known := errors.AsType[*amqp.Error](err)
		switch {
		case err == nil || known && failure.Permanent:
			g.open()
		case ctx.Err() == nil:
			g.close()
		}
		if mine {
			<-g.turn
		}
		if err == nil || known && failure.Permanent || ctx.Err() != nil {
			return err
		}
	}
}

// enter waits until a try makes sense. mine tells that the turn was taken, and must be given back.
func (g *gate) enter(ctx context.Context, stop <-chan struct{}) (mine bool, err error) {
	closed := g.state()
	if closed == nil {
		return false, nil
	}
	select {
	case <-closed:
		return false, nil
	case g.turn <- struct{}{}:
	case <-stop:
		return false, errBrokerAway
	case <-ctx.Done():
		return false, ctx.Err()
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C: // first of all, or failures would make a loop
		case <-closed:
			return true, nil
		case <-stop:
			<-g.turn
			return false, errBrokerAway
		case <-ctx.Done():
			<-g.turn
			return false, ctx.Err()
		}
		if g.publisher.Ready() == nil {
			return true, nil
		}
	}
}

// count notes who comes and goes. When all have gone there is nobody left to find out when mails pass again.
func (g *gate) count(n int) {
	g.mu.Lock()
	g.inside += n
	empty := g.inside == 0
	g.mu.Unlock()
	if empty {
		g.open()
	}
}

func (g *gate) state() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == nil {
		g.closed = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		close(g.closed)
		g.closed = nil
	}
}

// ready returns nil when mail may be fetched, because it would pass.
func (g *gate) ready() error {
	if g.state() != nil {
		return errBrokerAway
	}
	return g.publisher.Ready()
}

// await waits until mail may be fetched, or returns ctx's error.
func (g *gate) await(ctx context.Context) error {
	if g.publisher.Ready() == nil && g.state() == nil {
		return nil
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if g.ready() == nil {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
