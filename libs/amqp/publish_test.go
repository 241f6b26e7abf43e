package amqp

import (
	"testing"
	"time"

	"spamtraps.internal/libs/amqp/amqptest"
	"spamtraps.internal/libs/rig"
)

func TestPublishedMessagesArrive(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	inbox := amqptest.NewInbox(t, b.URL(), "spam", "spam.mails")
	p := run(t, settings(b.URL()))
	p.waitReady(testPatience)
	c := newCrowd(p, 20, 10<<10)
	c.more(t, 2000, time.Minute)
	c.end()
	p.stop()
	copies := inbox.Copies(t)
	for id := range c.accepted {
		if copies[id] != 1 {
			t.Errorf("%s: %d copies", id, copies[id])
		}
	}
}
