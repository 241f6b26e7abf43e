package amqp

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/libs/amqp/amqptest"
	"spamtraps.internal/libs/rig"
)

// TestBadDays has one crowd of callers publish through everything that a broker and its network can go through. What
// was accepted must be there, at most a window of duplicates a day, with one clear line in the log, and the broker's
// return must be noticed within five seconds. With CAMPAIGN=full there are twenty days more, at random.
func TestBadDays(t *testing.T) {
	b := rig.OwnBroker(t)
	inbox := amqptest.NewInbox(t, b.URL(), "spam", "spam.mails")
	cfg := settings(b.URL())
	cfg.InFlight = 20
	cfg.Heartbeat = 2 * time.Second
	p := run(t, cfg)
	p.waitReady(testPatience)
	c := newCrowd(p, 30, 4<<10)

	type day struct {
		name       string
		hurt, heal func()
		says       string // in the state while it lasts
	}
	days := []day{
		{"killed", b.Kill, b.Start, "cannot reach"},
		{"connections closed", b.CloseAllConnections, func() {}, ""},
		{"memory alarm", func() { b.MemoryAlarm(true) }, func() { b.MemoryAlarm(false) }, "the broker has an alarm"},
		{"disk alarm", func() { b.DiskAlarm(true) }, func() { b.DiskAlarm(false) }, "the broker has an alarm"},
		{"paused", b.Pause, b.Unpause, "cannot open a connection"},
		{"cut off", b.Partition, b.Rejoin, "cannot"},
		{"application stopped", b.StopApp, b.StartApp, "cannot"},
	}
	if os.Getenv("CAMPAIGN") == "full" {
		days = append(days, day{"stopped", b.Stop, b.Start, "cannot reach"})
		for range 20 {
			days = append(days, days[rand.IntN(len(days))])
		}
	}
	for _, day := range days {
		c.more(t, 100, 10*time.Second)
		before := len(p.log.at("warn"))
		day.hurt()
		if day.says != "" {
			rig.Eventually(t, 10*time.Second, day.name+" shows in the state", func() bool {
				return strings.Contains(p.State().Text, day.says)
			})
			t.Logf("%s: %s", day.name, p.State())
		}
		day.heal()
		healed := time.Now()
		c.more(t, 1, 5*time.Second)
		t.Logf("%s: publishing again after %v", day.name, time.Since(healed))
		if lines := p.log.at("warn")[before:]; len(lines) < 1 || len(lines) > 3 {
			t.Errorf("%s: %d warnings: %v", day.name, len(lines), lines)
		}
	}
	c.more(t, 100, 10*time.Second)
	c.end()
	p.stop()
	account(t, inbox.Copies(t), c, cfg.InFlight*len(days))
}

// account compares what was accepted with what has arrived.
func account(t *testing.T, copies map[string]int, c *crowd, mayDuplicate int) {
	t.Helper()
	var missing []string
	for id := range c.accepted {
		if copies[id] == 0 {
			missing = append(missing, id)
		}
	}
	duplicates := 0
	for _, n := range copies {
		duplicates += n - 1
	}
	summary := fmt.Sprintf("%d accepted, %d arrived, %d duplicates, failures %v", len(c.accepted), len(copies), duplicates, c.failures)
	t.Log(summary)
	if len(missing) > 0 {
		t.Errorf("lost %v; %s", missing, summary)
	}
	if duplicates > mayDuplicate {
		t.Errorf("more than %d duplicates; %s", mayDuplicate, summary)
	}
}
