package bench

import (
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/rig"
)

// publish sends the round's mails with nothing but amqp091: one connection and channel, confirms, mandatory, persistent, as
// many unconfirmed at once as inFlight, into spam.mails. It returns mails a second and empties the queue.
func (s *stage) publish(inFlight int) float64 {
	s.b.Helper()
	conn, err := amqp091.Dial(s.broker.URLAt(s.broker.Address()))
	if err != nil {
		s.b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		s.b.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		s.b.Fatal(err)
	}
	body := make([]byte, mailSize)
	pending := make(chan *amqp091.DeferredConfirmation, inFlight)
	done := make(chan struct{})
	from := time.Now()
	go func() {
		defer close(done)
		for range mails {
			c := <-pending
			if ok, err := c.WaitContext(s.b.Context()); err != nil || !ok {
				s.b.Errorf("a bare publish was not confirmed: %v", err)
			}
		}
	}()
	for range mails {
		c, err := ch.PublishWithDeferredConfirmWithContext(s.b.Context(), "spam", "spam.mails", true, false, amqp091.Publishing{
			DeliveryMode: amqp091.Persistent, ContentType: "message/rfc822", Body: body,
		})
		if err != nil {
			s.b.Fatal(err)
		}
		pending <- c
	}
	<-done
	rate := mails / time.Since(from).Seconds()
	s.drained(mails)
	return rate
}

// purge empties a queue and says how many messages it had.
func purge(b *testing.B, broker *rig.Broker, queue string) int {
	b.Helper()
	conn, err := amqp091.Dial(broker.URL())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		b.Fatal(err)
	}
	n, err := ch.QueuePurge(queue, false)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
