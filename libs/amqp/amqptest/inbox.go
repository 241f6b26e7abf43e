// Package amqptest looks at what has been published, for the tests of every module: it collects what an exchange routes in a queue of its
// own, so that nobody's real queue is drained or has its delivery limit eaten.
package amqptest

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// inboxes numbers the queues of this process.
var inboxes atomic.Int64

// Inbox is a durable queue that gets a copy of everything published with one routing key. It survives the broker's restarts; its
// connections are made when they are needed.
type Inbox struct {
	url   string
	queue string
	seen  []amqp091.Delivery
}

// NewInbox declares the exchange (topic, durable) unless it exists, and a queue of its own bound to it. The queue goes with
// the vhost or the broker.
func NewInbox(tb testing.TB, url, exchange, key string) *Inbox {
	tb.Helper()
	in := &Inbox{url: url, queue: fmt.Sprintf("inbox-%d-%d", time.Now().UnixNano(), inboxes.Add(1))}
	in.with(tb, func(ch *amqp091.Channel) error {
		if err := ch.ExchangeDeclare(exchange, amqp091.ExchangeTopic, true, false, false, false, nil); err != nil {
			return err
		}
		if _, err := ch.QueueDeclare(in.queue, true, false, false, false, nil); err != nil {
			return err
		}
		return ch.QueueBind(in.queue, key, exchange, false, nil)
	})
	return in
}

// Queue returns an inbox on a queue that exists, for a test that owns it: reading takes the messages out.
func Queue(url, name string) *Inbox { return &Inbox{url: url, queue: name} }

// Messages returns everything that has arrived so far, in order, what earlier calls returned included.
func (in *Inbox) Messages(tb testing.TB) []amqp091.Delivery {
	tb.Helper()
	in.with(tb, func(ch *amqp091.Channel) error {
		state, err := ch.QueueDeclarePassive(in.queue, true, false, false, false, nil)
		if err != nil {
			return err
		}
		if err := ch.Qos(1000, 0, false); err != nil {
			return err
		}
		deliveries, err := ch.Consume(in.queue, "", false, false, false, false, nil)
		if err != nil {
			return err
		}
		for range state.Messages {
			d, ok := <-deliveries
			if !ok {
				return amqp091.ErrClosed
			}
			if err := d.Ack(false); err != nil {
				return err
			}
			in.seen = append(in.seen, d)
		}
		return nil
	})
	return in.seen
}

// Copies returns how many copies of each message id have arrived so far.
func (in *Inbox) Copies(tb testing.TB) map[string]int {
	tb.Helper()
	copies := map[string]int{}
	for _, d := range in.Messages(tb) {
		copies[d.MessageId]++
	}
	return copies
}

func (in *Inbox) with(tb testing.TB, do func(*amqp091.Channel) error) {
	tb.Helper()
	conn, err := amqp091.Dial(in.url)
	if err != nil {
		tb.Fatalf("inbox: %v", err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err == nil {
		err = do(ch)
	}
	if err != nil {
		tb.Fatalf("inbox: %v", err)
	}
}
