package amqp

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/rig"
)

func TestBacklogIsUnattended(t *testing.T) {
	type look struct{ messages, consumers int }
	for _, row := range []struct {
		name  string
		looks []look
		want  bool
	}{
		{"grows", []look{{1, 0}, {2, 0}, {3, 0}}, true},
		{"grows, with a quiet hour", []look{{1, 0}, {2, 0}, {2, 0}, {3, 0}}, true},
		{"large but still", []look{{1000, 0}, {1000, 0}, {1000, 0}, {1000, 0}}, false},
		{"grows, with a consumer", []look{{1, 1}, {2, 1}, {3, 1}, {4, 1}}, false},
		{"a consumer comes", []look{{1, 0}, {2, 0}, {3, 0}, {4, 1}}, false},
		{"is drained", []look{{1, 0}, {2, 0}, {3, 0}, {0, 0}}, false},
	} {
		var b backlog
		var got bool
		for _, l := range row.looks {
			got = b.look(l.messages, l.consumers)
		}
		if got != row.want {
			t.Errorf("%s: %v", row.name, got)
		}
	}
}

func TestBacklogThatGrowsIsSaid(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	cfg := settings(b.URL())
	cfg.QueueType = "classic" // a quorum queue renews its numbers only every five seconds
	p := run(t, cfg, func(p *Publisher) { p.backlogEvery = 50 * time.Millisecond })
	p.waitReady(testPatience)
	c := newCrowd(p, 2, 100)
	rig.Eventually(t, 20*time.Second, "the state says so", func() bool {
		return strings.Contains(p.State().Text, `queue "spam.mails" grows and has no consumer`)
	})
	if !p.State().OK {
		t.Errorf("state: %s", p.State())
	}
	if warnings := p.log.at("warn"); len(warnings) != 1 {
		t.Errorf("warnings: %v", warnings)
	}
	if n := testutil.ToFloat64(p.metrics.messages); n < 1 {
		t.Errorf("the metric says %v messages", n)
	}
	admin(t, b, func(ch *amqp091.Channel) error {
		deliveries, err := ch.Consume("spam.mails", "", true, false, false, false, nil)
		if err != nil {
			return err
		}
		rig.Eventually(t, 20*time.Second, "the consumer is seen", func() bool {
			for len(deliveries) > 0 {
				<-deliveries
			}
			return !strings.Contains(p.State().Text, "no consumer") && testutil.ToFloat64(p.metrics.consumers) == 1
		})
		return nil
	})
	c.end()
}
