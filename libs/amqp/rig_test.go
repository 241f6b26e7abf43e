package amqp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"spamtraps.internal/libs/rig"
	"spamtraps.internal/libs/secret"
)

// testPatience is how long a test waits for a connection that nothing keeps from coming up.
const testPatience = 10 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal is a log that a test reads.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, strings.TrimSpace(string(b)))
	return len(b), nil
}

// entry is one line of the log.
type entry struct{ Level, Message, Cause string }

// at returns the entries of a level.
func (j *journal) at(level string) []entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []entry
	for _, line := range j.lines {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err == nil && e.Level == level {
			found = append(found, e)
		}
	}
	return found
}

// text returns all of the log.
func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, "\n")
}

// subject is a running publisher under test.
type subject struct {
	*Publisher
	t    testing.TB
	log  *journal
	stop func() // ends Run and waits for it
}

// settings returns the defaults, for a broker.
func settings(url string) Config {
	cfg := Defaults()
	cfg.URL = secret.New(url)
	return cfg
}

// run starts a publisher, which stops with the test. Tweaks come before the start.
func run(t testing.TB, cfg Config, tweaks ...func(*Publisher)) *subject {
	t.Helper()
	if cfg.Exchange != "" { // else it is one of ToQueue, made of one that is valid
		cfg.Validate(func(name, problem string) { t.Fatalf("AMQP_%s %s", name, problem) })
	}
	log := &journal{}
	p := NewPublisher(cfg, zerolog.New(log), prometheus.NewRegistry())
	for _, tweak := range tweaks {
		tweak(p)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	var once sync.Once
	s := &subject{Publisher: p, t: t, log: log, stop: func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}}
	t.Cleanup(func() {
		s.stop()
		keepsSecrets(t, cfg, log.text()+p.State().Text)
		if t.Failed() {
			t.Logf("log of the publisher:\n%s", log.text())
		}
	})
	return s
}

// keepsSecrets looks for passwords where none may be.
func keepsSecrets(t testing.TB, cfg Config, text string) {
	t.Helper()
	brokers, _ := cfg.brokers()
	for _, b := range brokers {
		if len(b.password) > len("secret") && strings.Contains(text, b.password) {
			t.Errorf("a password is in the log or the state")
		}
	}
}

// waitReady returns when the publisher would take a message.
func (s *subject) waitReady(limit time.Duration) {
	s.t.Helper()
	rig.Eventually(s.t, limit, "publisher is ready", func() bool { return s.Ready() == nil })
}

// connections returns how many have been made.
func (s *subject) connections() int { return strings.Count(s.log.text(), `"amqp: connected"`) }

// message makes a message of size bytes.
func message(id string, size int) amqp091.Publishing {
	return amqp091.Publishing{MessageId: id, DeliveryMode: amqp091.Persistent, Body: bytes.Repeat([]byte("x"), size)}
}

// reason returns the reason of a failed Publish, or "".
func reason(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}

// crowd publishes messages from many goroutines until told to stop, each message again until it is accepted, as callers do.
type crowd struct {
	number   int64 // part of its messages' ids
	mu       sync.Mutex
	accepted map[string]bool
	failures map[Reason]int
	tries    int
	latest   time.Time // of the latest success
	wg       sync.WaitGroup
	halt     chan struct{}
}

var crowds atomic.Int64

func newCrowd(s *subject, workers, size int) *crowd {
	c := &crowd{number: crowds.Add(1), accepted: map[string]bool{}, failures: map[Reason]int{}, halt: make(chan struct{})}
	for w := range workers {
		c.wg.Go(func() { c.work(s, w, size) })
	}
	return c
}

func (c *crowd) work(s *subject, worker, size int) {
	for i := 0; ; {
		select {
		case <-c.halt:
			return
		default:
		}
		id := fmt.Sprintf("%d/%d-%d", c.number, worker, i)
		err := s.Publish(context.Background(), message(id, size))
		c.mu.Lock()
		c.tries++
		if err == nil {
			c.accepted[id], c.latest = true, time.Now()
			i++
		} else {
			c.failures[reason(err)]++
		}
		c.mu.Unlock()
		if err != nil {
			pause(c.halt, 5*time.Millisecond)
		}
	}
}

// pause keeps a caller that was refused from asking again at once.
func pause(halt <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-halt:
	}
}

// end stops the crowd and waits for it.
func (c *crowd) end() {
	close(c.halt)
	c.wg.Wait()
}

// count returns how many messages have been accepted.
func (c *crowd) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.accepted)
}

// calls returns how often Publish was called.
func (c *crowd) calls() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tries
}

// more waits until n more messages have been accepted than now.
func (c *crowd) more(t testing.TB, n int, limit time.Duration) {
	t.Helper()
	target := c.count() + n
	rig.Eventually(t, limit, fmt.Sprintf("%d more messages pass", n), func() bool { return c.count() >= target })
}
