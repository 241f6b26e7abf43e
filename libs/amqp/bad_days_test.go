package amqp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/libs/amqp/amqptest"
	"spamtraps.internal/libs/rig"
)

// TestBadDays is what has to have a broker of its own. In each test what was accepted must have arrived.
func TestBadDays(t *testing.T) {
	b := rig.OwnBroker(t)
	inbox := amqptest.NewInbox(t, b.URL(), "spam", "spam.mails")
	t.Run("alarm among large messages", func(t *testing.T) { testAlarmAmongLargeMessages(t, b, inbox) })
	t.Run("body over the broker's limit", func(t *testing.T) { testBodyOverTheLimit(t, b, inbox) })
	t.Run("one after the other", func(t *testing.T) { testDays(t, b, inbox) })
}

// testDays has one crowd of callers publish through everything that a broker and its network can go through. What was
// accepted must be there, at most a window of duplicates a day, with one clear line in the log, and the broker's return must
// be noticed within five seconds. With CAMPAIGN=full there are twenty days more, at random.
func testDays(t *testing.T, b *rig.Broker, inbox *amqptest.Inbox) {
	t.Helper()
	cfg := settings(b.URL())
	cfg.InFlight = 20
	cfg.Heartbeat = 2 * time.Second
	p := run(t, cfg)
	p.waitReady(testPatience)
	c := newCrowd(p, 30, 4<<10)
	goroutines := runtime.NumGoroutine()

	type day struct {
		name       string
		hurt, heal func()
		says       string // in the state while it lasts
		keeps      bool   // the connection survives it
	}
	days := []day{
		{"killed", b.Kill, b.Start, "cannot reach", false},
		{"connections closed", b.CloseAllConnections, func() {}, "", false},
		{"memory alarm", func() { b.MemoryAlarm(true) }, func() { b.MemoryAlarm(false) }, "the broker has an alarm", true},
		{"disk alarm", func() { b.DiskAlarm(true) }, func() { b.DiskAlarm(false) }, "the broker has an alarm", true},
		{"paused", b.Pause, b.Unpause, "cannot open a connection", false},
		{"application stopped", b.StopApp, b.StartApp, "cannot", false},
	}
	if os.Getenv("CAMPAIGN") == "full" {
		days = append(days, day{"stopped", b.Stop, b.Start, "cannot reach", false})
		for range 20 {
			days = append(days, days[rand.IntN(len(days))])
		}
	}
	// The last one: the container may have another address afterwards, by which its own tools do not find it.
	days = append(days, day{"cut off", b.Partition, b.Rejoin, "cannot", false})
	for _, day := range days {
		c.more(t, 100, 10*time.Second)
		before, connected := len(p.log.at("warn")), p.connections()
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
		if kept := p.connections() == connected; kept != day.keeps {
			t.Errorf("%s: the connection was kept: %v", day.name, kept)
		}
		if lines := p.log.at("warn")[before:]; len(lines) < 1 || len(lines) > 3 {
			t.Errorf("%s: %d warnings: %v", day.name, len(lines), lines)
		}
	}
	c.more(t, 100, 10*time.Second)
	rig.Eventually(t, testPatience, "no goroutines are left over", func() bool { return runtime.NumGoroutine() <= goroutines+5 })
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	if memory.HeapInuse > 64<<20 {
		t.Errorf("%d MiB of heap are in use", memory.HeapInuse>>20)
	}
	c.end()
	p.stop()
	account(t, inbox.Copies(t), c, cfg.InFlight*len(days))
}

// testAlarmAmongLargeMessages raises an alarm while far more is outstanding than the kernel's buffers hold: some message is
// caught within its own bytes. Every caller must have an answer at once, and nothing may wedge, as the library alone does.
func testAlarmAmongLargeMessages(t *testing.T, b *rig.Broker, inbox *amqptest.Inbox) {
	t.Helper()
	cfg := settings(b.URL())
	cfg.Heartbeat = 2 * time.Second
	p := run(t, cfg)
	p.waitReady(testPatience)
	b.MemoryAlarm(true)
	const callers = 2 * lanes
	large := message("large", 15<<20)
	begun := time.Now()
	results := make(chan error, callers)
	for range callers {
		go func() { results <- p.Publish(context.Background(), large) }()
	}
	for range callers {
		if err := <-results; reason(err) != ReasonAlarm && reason(err) != ReasonDown {
			t.Errorf("got %v", err)
		}
	}
	if took := time.Since(begun); took > alarmGrace+3*time.Second {
		t.Errorf("the last caller had its answer after %v", took)
	}
	c := newCrowd(p, 20, 1000)
	rig.Eventually(t, testPatience, "a try meets the alarm", func() bool { return p.door.alarmed() })
	t.Log(p.State())
	b.MemoryAlarm(false)
	c.more(t, 100, 5*time.Second)
	c.end()
	if n := p.connections(); n > 2 {
		t.Errorf("%d connections because of one alarm", n)
	}
	account(t, inbox.Copies(t), c, cfg.InFlight)
}

// testBodyOverTheLimit sends what is larger than the broker takes. It costs one connection to learn the limit.
func testBodyOverTheLimit(t *testing.T, b *rig.Broker, inbox *amqptest.Inbox) {
	t.Helper()
	const limit = 1_000_000
	setLimit := func(bytes int) {
		b.Ctl("eval", fmt.Sprintf("persistent_term:put(max_message_size, %d).", bytes))
		b.CloseAllConnections()
	}
	setLimit(limit)
	p := run(t, settings(b.URL()))
	p.waitReady(testPatience)
	c := newCrowd(p, 20, 1000)
	c.more(t, 100, testPatience)
	large := message("large", limit+1)
	for attempt := range 2 { // the first teaches us the limit, at the cost of a connection
		err := p.Publish(t.Context(), large)
		var failure *Error
		if !errors.As(err, &failure) || !failure.Permanent || failure.Reason != ReasonTooLarge {
			t.Errorf("attempt %d: %v", attempt, err)
		}
		c.more(t, 100, 5*time.Second)
	}
	if p.MaxMessageBytes() != limit || p.connections() != 2 {
		t.Errorf("the limit is taken to be %d after %d connections", p.MaxMessageBytes(), p.connections())
	}
	setLimit(16 << 20) // forgotten when the broker has been away
	rig.Eventually(t, testPatience, "the limit is forgotten", func() bool { return p.MaxMessageBytes() == p.cfg.MaxMessageBytes })
	p.waitReady(testPatience)
	rig.Eventually(t, testPatience, "the large message passes", func() bool { return p.Publish(t.Context(), large) == nil })
	c.end()
	account(t, inbox.Copies(t), c, 3*p.cfg.InFlight)
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
	for id, n := range copies {
		if strings.HasPrefix(id, fmt.Sprintf("%d/", c.number)) {
			duplicates += n - 1
		}
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
