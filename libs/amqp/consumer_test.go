package amqp

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"spamtraps.internal/libs/rig"
)

// reader is a running consumer under test, and a user that takes each message, notes it and acknowledges it as it is told.
type reader struct {
	*Consumer
	t    testing.TB
	log  *journal
	stop func() // ends everything and waits for it

	mu     sync.Mutex
	copies map[string]int
	stints int
	held   int // of the present stint
	most   int
	hold   bool // acknowledges nothing
	stint  *Stint
	last   uint64
}

var ownSource = Source{Queue: "spam.hpfeeds", DeadLetter: "spam.dead", Prefetch: 50, Bytes: 1 << 20}

// read starts a consumer and its user, which end with the test.
func read(t testing.TB, cfg Config, source Source, tweaks ...func(*Consumer)) *reader {
	t.Helper()
	log := &journal{}
	c := NewConsumer(cfg, source, zerolog.New(log), prometheus.NewRegistry())
	for _, tweak := range tweaks {
		tweak(c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	r := &reader{Consumer: c, t: t, log: log, copies: map[string]int{}}
	parts.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	parts.Go(func() { r.take(ctx) })
	var once sync.Once
	r.stop = func() { once.Do(func() { cancel(); parts.Wait() }) }
	t.Cleanup(func() {
		r.stop()
		keepsSecrets(t, cfg, log.text()+c.State().Text)
		if t.Failed() {
			t.Logf("log of the consumer:\n%s", log.text())
		}
	})
	c.Resume()
	return r
}

func (r *reader) take(ctx context.Context) {
	var deliveries <-chan amqp091.Delivery
	for {
		select {
		case s := <-r.Stints():
			deliveries = s.Deliveries()
			r.mu.Lock()
			r.stint, r.held, r.last = s, 0, 0
			r.stints++
			r.mu.Unlock()
		case d, ok := <-deliveries:
			if !ok {
				deliveries = nil
				continue
			}
			r.note(d)
		case <-ctx.Done():
			return
		}
	}
}

func (r *reader) note(d amqp091.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.copies[d.MessageId]++
	r.held++
	r.most = max(r.most, r.held)
	r.last = d.DeliveryTag
	if !r.hold {
		r.stint.AckThrough(d.DeliveryTag)
		r.held = 0
	}
}

// holding tells the user to acknowledge nothing, or to acknowledge what it holds and go on.
func (r *reader) holding(hold bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold = hold
	if !hold && r.stint != nil && r.last > 0 {
		r.stint.AckThrough(r.last)
		r.held = 0
	}
}

func (r *reader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.copies)
}

func (r *reader) holds() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held
}

// waitOK returns when the queue is there to be consumed from.
func (r *reader) waitOK(limit time.Duration) {
	r.t.Helper()
	rig.Eventually(r.t, limit, "the queue can be reached", func() bool { return r.State().OK })
}

// waitAll returns when every message that the publishers know to be kept has come.
func (r *reader) waitAll(limit time.Duration, accepted map[string]bool) {
	r.t.Helper()
	rig.Eventually(r.t, limit, "all messages come", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for id := range accepted {
			if r.copies[id] == 0 {
				return false
			}
		}
		return true
	})
}

func (r *reader) duplicates() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, copies := range r.copies {
		n += copies - 1
	}
	return n
}

// depth is how many messages a queue has, unacknowledged ones among them, as the broker itself counts them.
func depth(t testing.TB, b *rig.Broker, queue string) (ready, unacked int) {
	t.Helper()
	var found struct {
		Ready   int `json:"messages_ready"`
		Unacked int `json:"messages_unacknowledged"`
	}
	b.API(http.MethodGet, "/api/queues/"+url.PathEscape(b.VHost)+"/"+queue+"?disable_stats=true&enable_queue_totals=true", nil, &found)
	return found.Ready, found.Unacked
}

func TestConsumerHasAQueueOfItsOwn(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	r := read(t, settings(b.URL()), ownSource)
	r.waitOK(testPatience)
	q := object(b, "queues", "spam.hpfeeds")
	for name, want := range map[string]any{
		"x-queue-type": "quorum", "x-dead-letter-exchange": "spam.dead", "x-dead-letter-strategy": "at-least-once",
		"x-overflow": "reject-publish", "x-delivery-limit": float64(DeliveryLimit),
	} {
		if q.Arguments[name] != want || !q.Durable {
			t.Errorf("the queue is %+v, not %s=%v", q, name, want)
		}
	}
	p := run(t, settings(b.URL()))
	p.waitReady(testPatience)
	for i := range 200 {
		if err := p.Publish(t.Context(), message(fmt.Sprint(i), 100)); err != nil {
			t.Fatal(err)
		}
	}
	rig.Eventually(t, testPatience, "all have come", func() bool { return r.count() == 200 })
	if n := r.duplicates(); n != 0 {
		t.Errorf("%d came twice", n)
	}
	r.stop()
	rig.Eventually(t, testPatience, "nothing is left in the queue", func() bool { ready, unacked := depth(t, b, "spam.hpfeeds"); return ready+unacked == 0 })
}

// A queue that is there in another shape is taken as it is.
func TestConsumerTakesTheQueueAsItIs(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	admin(t, b, func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclare("spam.hpfeeds", true, false, false, false, amqp091.Table{"x-max-length": 1000})
		return err
	})
	r := read(t, settings(b.URL()), ownSource)
	r.waitOK(testPatience)
	rig.Eventually(t, testPatience, "a stint begins", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.stints == 1 })
}

// The least rights: to read the queue, where the broker's own definitions make and bind it; and what is said when even that is missing.
func TestConsumerRights(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, configure, write, read string
		owned                        bool // an owner has made exchange and queue
		says                         string
	}{
		{"the queue alone", "^$", "^$", `^spam\.hpfeeds$`, true, ""},
		{"those of our image", `^spam\.hp`, `^spam\.(hp|dead$)`, `^spam($|\.hp|\.dead$)`, false, ""},
		{"not even to read", "^$", "^$", "^$", true, `cannot consume from queue "spam.hpfeeds": user`},
		{"absent, and not ours to declare", "^$", "^$", ".*", false, `cannot declare queue "spam.hpfeeds", which is absent: user`},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := rig.SharedBroker(t)
			run(t, settings(b.URL())).waitReady(testPatience) // the exchange
			if row.owned {
				owner := read(t, settings(b.URL()), ownSource)
				owner.waitOK(testPatience)
				owner.stop()
			}
			r := read(t, limited(b, row.configure, row.write, row.read), ownSource)
			if row.says == "" {
				rig.Eventually(t, testPatience, "a stint begins", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.stints == 1 })
				return
			}
			rig.Eventually(t, testPatience, "it is said what is missing", func() bool {
				return strings.Contains(r.State().Text, row.says) && strings.Contains(r.State().Text, "lacks the right to")
			})
			warnings := len(r.log.at("warn"))
			if warnings != 1 {
				t.Errorf("%d warnings", warnings)
			}
		})
	}
}

// A paused consumer has its queue declared and bound, and gives back once what it held.
func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	r := read(t, settings(b.URL()), ownSource)
	r.waitOK(testPatience)
	p := run(t, settings(b.URL()))
	p.waitReady(testPatience)
	r.holding(true)
	const all = 120
	for i := range all {
		if err := p.Publish(t.Context(), message(fmt.Sprint(i), 10)); err != nil {
			t.Fatal(err)
		}
	}
	rig.Eventually(t, testPatience, "the prefetch is used up", func() bool { return r.holds() == ownSource.Prefetch })
	r.mu.Lock()
	first := r.stint
	r.mu.Unlock()
	r.Pause()
	rig.Eventually(t, testPatience, "all of it is in the queue again", func() bool { ready, unacked := depth(t, b, "spam.hpfeeds"); return ready == all && unacked == 0 })
	first.AckThrough(10) // void
	rig.Eventually(t, testPatience, "the state tells", func() bool {
		return strings.Contains(r.State().Text, `not consuming from queue "spam.hpfeeds", 120 messages wait in it`)
	})
	if r.most > ownSource.Prefetch {
		t.Errorf("held %d, with a prefetch of %d", r.most, ownSource.Prefetch)
	}
	r.holding(false)
	r.Resume()
	rig.Eventually(t, testPatience, "all have come", func() bool { return r.count() == all })
	if n := r.duplicates(); n != ownSource.Prefetch {
		t.Errorf("%d duplicates of one pause with %d held", n, ownSource.Prefetch)
	}
}

// Large bodies are held back by bytes, not only by count, and that starves no heartbeat: with the gate shut for several intervals
// the connection lives, and everything comes once.
func TestBytesAreBounded(t *testing.T) {
	b := rig.SharedBroker(t)
	cfg := settings(b.URL())
	cfg.Heartbeat = 2 * time.Second
	source := ownSource
	source.Prefetch, source.Bytes = 100, 8<<20
	r := read(t, cfg, source)
	r.waitOK(testPatience)
	r.holding(true)
	p := run(t, cfg)
	p.waitReady(testPatience)
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	idle := memory.HeapAlloc
	const all, size = 80, 1 << 20
	body := message("", size)
	for i := range all {
		body.MessageId = fmt.Sprint(i)
		if err := p.Publish(t.Context(), body); err != nil {
			t.Fatal(err)
		}
	}
	rig.Eventually(t, testPatience, "the gate is shut", func() bool { _, bytes := r.load(); return bytes >= source.Bytes })
	<-time.After(5 * cfg.Heartbeat) // nothing but time may pass: whoever starves a heartbeat loses the connection by then
	runtime.GC()
	runtime.ReadMemStats(&memory)
	if count, bytes := r.load(); bytes > source.Bytes+size || count > 9 {
		t.Errorf("%d messages of %d bytes are held, with a limit of %d", count, bytes, source.Bytes)
	}
	if grown := int64(memory.HeapAlloc) - int64(idle); grown > source.Bytes+16<<20 { //nolint:gosec // far from overflow
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
	r.holding(false)
	rig.Eventually(t, 30*time.Second, "all have come", func() bool { return r.count() == all })
	if r.duplicates() != 0 || strings.Count(r.log.text(), `"amqp: connected"`) != 1 {
		t.Errorf("%d duplicates; the connection did not live:\n%s", r.duplicates(), r.log.text())
	}
}

// A pause while the gate is shut ends in good order: nothing waits for room that nobody will make.
func TestPauseWhileTheGateIsShut(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	source := ownSource
	source.Bytes = 1 << 20
	r := read(t, settings(b.URL()), source)
	r.waitOK(testPatience)
	r.holding(true)
	p := run(t, settings(b.URL()))
	p.waitReady(testPatience)
	const all = 8 // the goodbye lies behind them: few, or reading them takes as long as a broker that says nothing is given
	for i := range all {
		if err := p.Publish(t.Context(), message(fmt.Sprint(i), 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	best := time.Hour // of some, since the machine may be busy; a goodbye that cannot be read takes closeLimit each time
	for turn := range 4 {
		rig.Eventually(t, testPatience, "the gate is shut", func() bool { _, bytes := r.load(); return bytes >= source.Bytes })
		began := time.Now()
		r.Pause()
		rig.Eventually(t, testPatience, "it is paused", func() bool { return strings.Count(r.log.text(), `"amqp: connected"`) == turn+2 })
		best = min(best, time.Since(began))
		r.Resume()
		if best < closeLimit {
			break
		}
	}
	if best >= closeLimit {
		t.Errorf("a pause takes %s: the broker's goodbye is not read", best)
	}
	r.holding(false)
	rig.Eventually(t, 30*time.Second, "all have come", func() bool { return r.count() == all })
}

// refuser is a broker that nobody may acknowledge anything to.
type refuser struct{ t *testing.T }

func (r refuser) Ack(tag uint64, _ bool) error {
	r.t.Errorf("delivery %d is acknowledged after the end of its stint", tag)
	return nil
}
func (refuser) Nack(uint64, bool, bool) error { return nil }
func (refuser) Reject(uint64, bool) error     { return nil }

// What is acknowledged after the end of a stint is not: the message comes again, under another tag.
func TestAckAfterTheEnd(t *testing.T) {
	deliveries := make(chan amqp091.Delivery)
	close(deliveries)
	s := NewStint(deliveries, refuser{t})
	new(Consumer).end(s)
	s.Ack(1)
	s.AckThrough(2)
}

// Whoever deletes the queue finds it declared and bound again.
func TestQueueDeletedUnderTheConsumer(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	for _, paused := range []bool{false, true} {
		every := time.Hour // who consumes is told by the broker
		if paused {
			every = 100 * time.Millisecond
		}
		r := read(t, settings(b.URL()), ownSource, func(c *Consumer) { c.depthEvery = every })
		r.waitOK(testPatience)
		if !paused {
			rig.Eventually(t, testPatience, "a stint begins", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.stints == 1 })
		} else {
			r.Pause()
			rig.Eventually(t, testPatience, "it is paused", func() bool { return strings.Count(r.log.text(), `"amqp: connected"`) == 2 })
		}
		admin(t, b, func(ch *amqp091.Channel) error {
			_, err := ch.QueueDelete("spam.hpfeeds", false, false, false)
			return err
		})
		rig.Eventually(t, 5*time.Second, "it is noticed", func() bool { return strings.Contains(r.log.text(), "delete") })
		r.waitOK(5 * time.Second)
		r.Resume()
		p := run(t, settings(b.URL()))
		p.waitReady(testPatience)
		id := fmt.Sprintf("after, paused %v", paused)
		if err := p.Publish(t.Context(), message(id, 10)); err != nil {
			t.Fatal(err)
		}
		rig.Eventually(t, testPatience, "a message comes", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.copies[id] > 0 })
		if n := len(r.log.at("warn")); n < 1 || n > 2 {
			t.Errorf("%d warnings", n)
		}
		r.stop()
		p.stop()
	}
}

// A message is not held for longer than the broker lets anybody.
func TestHeldTooLong(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	r := read(t, settings(b.URL()), ownSource, func(c *Consumer) { c.holdLimit = time.Second })
	r.waitOK(testPatience)
	r.holding(true)
	p := run(t, settings(b.URL()))
	p.waitReady(testPatience)
	if err := p.Publish(t.Context(), message("a", 10)); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, testPatience, "it comes again", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.copies["a"] > 1 })
	if !strings.Contains(r.log.text(), "a message was held for") {
		t.Error("it is not said why")
	}
}

// A network that swallows everything is noticed within one and a half heartbeats.
func TestConsumerNoticesSilence(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	cfg, proxy := behind(t, b)
	r := read(t, cfg, ownSource)
	r.waitOK(testPatience)
	proxy.Freeze()
	frozen := time.Now()
	rig.Eventually(t, silenceLimit(cfg.Heartbeat)+2*time.Second, "it is noticed", func() bool { return !r.State().OK })
	t.Logf("noticed after %s: %s", time.Since(frozen).Round(time.Millisecond), r.State())
	begun := time.Now()
	r.stop()
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("the stop took %s", took)
	}
}

// TestConsumerHasBadDays consumes through everything that a broker can go through. What was confirmed to the publishers must come, with at most a
// prefetch of duplicates a day, and the broker's return must be noticed within five seconds.
func TestConsumerHasBadDays(t *testing.T) {
	t.Parallel()
	b := rig.OwnBroker(t)
	cfg := settings(b.URL())
	cfg.Heartbeat = 2 * time.Second
	r := read(t, cfg, ownSource)
	r.waitOK(testPatience)
	b.Ctl("eval", "mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()].") // the new queues are on the disk
	p := run(t, cfg)
	p.waitReady(testPatience)
	c := newCrowd(p, 20, 4<<10)
	type day struct {
		name       string
		hurt, heal func()
	}
	days := []day{
		{"killed", b.Kill, b.Start},
		{"connections closed", b.CloseAllConnections, func() {}},
		{"paused", func() {
			b.Pause()
			rig.Eventually(t, testPatience, "the silence is noticed", func() bool { return !r.State().OK })
		}, b.Unpause},
	}
	if os.Getenv("CAMPAIGN") == "full" {
		days = append(days, day{"stopped", b.Stop, b.Start}, day{"application stopped", b.StopApp, b.StartApp})
		for range 20 {
			days = append(days, days[0])
		}
	}
	for _, day := range days {
		c.more(t, 200, testPatience)
		day.hurt()
		day.heal()
		healed, before := time.Now(), r.count()
		rig.Eventually(t, 5*time.Second, day.name+": messages come again", func() bool { return r.State().OK && r.count() > before })
		t.Logf("%s: consuming again after %s", day.name, time.Since(healed).Round(time.Millisecond))
	}
	c.more(t, 200, testPatience)
	c.end()
	r.waitAll(30*time.Second, c.accepted)
	duplicates := r.duplicates()
	t.Logf("%d accepted, %d came, %d duplicates", len(c.accepted), r.count(), duplicates)
	if most := (ownSource.Prefetch + cfg.InFlight) * len(days); duplicates > most {
		t.Errorf("%d duplicates, more than %d", duplicates, most)
	}
}
