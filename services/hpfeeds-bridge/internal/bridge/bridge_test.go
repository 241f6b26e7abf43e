package bridge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/hpfeeds"
)

// queue is a source that keeps mails, as RabbitMQ does: what was not acknowledged comes again in the next stint.
type queue struct {
	mu       sync.Mutex
	mails    []amqp091.Delivery
	gone     map[string]bool // by id
	pauses   int
	stints   chan *amqp.Stint
	end      chan struct{} // of the present stint
	ended    sync.WaitGroup
	current  *served
	prefetch int
}

func newQueue(prefetch int, mails ...amqp091.Delivery) *queue {
	return &queue{mails: mails, gone: map[string]bool{}, stints: make(chan *amqp.Stint), prefetch: prefetch}
}

func mailsOf(n int) []amqp091.Delivery {
	mails := make([]amqp091.Delivery, n)
	for i := range mails {
		mails[i] = amqp091.Delivery{MessageId: fmt.Sprint("mail-", i), Body: bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 50)}
	}
	return mails
}

func (q *queue) Stints() <-chan *amqp.Stint { return q.stints }

func (q *queue) Resume() {
	end := make(chan struct{})
	q.mu.Lock()
	q.end = end
	q.mu.Unlock()
	q.ended.Go(func() { q.serve(end) })
}

func (q *queue) Pause() {
	q.mu.Lock()
	q.pauses++
	close(q.end)
	q.mu.Unlock()
	q.ended.Wait()
}

// serve is one stint.
func (q *queue) serve(end chan struct{}) {
	deliveries := make(chan amqp091.Delivery)
	defer close(deliveries)
	s := &served{queue: q, changed: make(chan struct{}, 1)}
	q.mu.Lock()
	q.current = s
	q.mu.Unlock()
	select {
	case q.stints <- amqp.NewStint(deliveries, s):
	case <-end:
		return
	}
	next := 0
	for {
		var out chan amqp091.Delivery
		var d amqp091.Delivery
		q.mu.Lock()
		for next < len(q.mails) && q.gone[q.mails[next].MessageId] {
			next++
		}
		if next < len(q.mails) && s.unacked < q.prefetch {
			out, d = deliveries, q.mails[next]
			d.DeliveryTag = uint64(len(s.tags) + 1)
			s.tags = append(s.tags, d.MessageId) // before it can be acknowledged
			s.unacked++
		}
		q.mu.Unlock()
		select {
		case out <- d:
			next++
			continue
		case <-s.changed:
		case <-end:
			return
		}
		if out != nil { // not sent
			q.mu.Lock()
			s.tags = s.tags[:len(s.tags)-1]
			s.unacked--
			q.mu.Unlock()
		}
	}
}

// add puts a mail into the queue.
func (q *queue) add(d amqp091.Delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mails = append(q.mails, d)
	if q.current != nil {
		q.current.wake()
	}
}

// left returns how many mails are not acknowledged.
func (q *queue) left() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.mails) - len(q.gone)
}

// served is the broker's side of a stint.
type served struct {
	*queue
	tags    []string // ids by tag, less one; "" once acknowledged
	unacked int
	changed chan struct{}
}

func (s *served) Ack(tag uint64, multiple bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := tag
	if multiple {
		first = 1
	}
	for i := first; i <= tag; i++ {
		if id := s.tags[i-1]; id != "" {
			s.gone[id], s.tags[i-1] = true, ""
			s.unacked--
		}
	}
	s.wake()
	return nil
}

func (s *served) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}
func (s *served) Nack(uint64, bool, bool) error { return errors.New("nothing is ever sent back") }
func (s *served) Reject(uint64, bool) error     { return errors.New("nothing is ever sent back") }

// feed is an hpfeeds broker that lies in the test's own process and time.
type feed struct {
	t  *testing.T
	mu sync.Mutex

	away     bool
	dials    int
	messages map[string]int // by the payload
	cut      time.Duration  // a connection that is idle for so long is dead, and nobody says so
	lost     int            // messages that were written to one
	ends     func(payload []byte) bool
	echoes   []*fakeConn
	conns    []*fakeConn
	says     time.Duration // how long after a message the broker says no; 0: never
	deaf     bool          // tokens are kept
	refuses  time.Duration // how long after the login the broker says no; 0: never
	kept     []hpfeeds.Message
	stop     context.CancelFunc // of the bridge
}

// hear gives the echoes the first n tokens that were kept.
func (f *feed) hear(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.kept[:n] {
		f.echo(m)
	}
	f.kept = f.kept[n:]
}

func (f *feed) echo(m hpfeeds.Message) {
	for _, e := range f.echoes {
		if e.err == nil {
			e.used = time.Now()
			e.incoming <- m
		}
	}
}

func (f *feed) deafen(deaf bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deaf = deaf
}

// die ends all connections.
func (f *feed) die(reason hpfeeds.Reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.fail(&hpfeeds.Error{Reason: reason, Err: errors.New("hpfeeds: lost feed:10000: the broker closed the connection")})
	}
	f.conns = nil
}

type fakeConn struct {
	*feed
	used     time.Time
	done     chan struct{}
	err      error
	incoming chan hpfeeds.Message
}

func (f *feed) dial(context.Context) (connection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials++
	if f.away {
		return nil, &hpfeeds.Error{Reason: hpfeeds.ReasonUnreachable, Err: errors.New("hpfeeds: cannot reach feed:10000: connection refused")}
	}
	c := &fakeConn{feed: f, used: time.Now(), done: make(chan struct{}), incoming: make(chan hpfeeds.Message, 1000)}
	f.conns = append(f.conns, c)
	if f.refuses > 0 {
		time.AfterFunc(f.refuses, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			c.fail(&hpfeeds.Error{Reason: hpfeeds.ReasonAuth, Permanent: true, Err: errors.New("hpfeeds: ident or secret is wrong")})
		})
	}
	return c, nil
}

func (c *fakeConn) Publish(channel string, payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	idle := time.Since(c.used)
	c.used = time.Now()
	if c.cut > 0 && idle > c.cut {
		c.lost++
		return nil
	}
	if channel == "fence" {
		m := hpfeeds.Message{Channel: channel, Payload: bytes.Clone(payload)}
		if c.deaf {
			c.kept = append(c.kept, m)
			return nil
		}
		c.echo(m)
		return nil
	}
	if c.ends != nil && c.ends(payload) {
		c.fail(&hpfeeds.Error{Reason: hpfeeds.ReasonClosed, Err: errors.New("hpfeeds: lost feed:10000: the broker closed the connection")})
		return nil // who writes does not know yet
	}
	c.messages[string(payload)]++
	if c.says > 0 {
		time.AfterFunc(c.says, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.fail(&hpfeeds.Error{Reason: hpfeeds.ReasonRefused, Err: errors.New("hpfeeds: lost feed:10000: the broker says: no")})
		})
	}
	return nil
}

func (c *fakeConn) fail(err error) {
	if c.err == nil {
		c.err = err
		close(c.done)
	}
}

func (c *fakeConn) Flush() error          { return c.Err() }
func (c *fakeConn) Unsent() (int, error)  { return 0, c.Err() }
func (c *fakeConn) Done() <-chan struct{} { return c.done }
func (c *fakeConn) Subscribe(...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.echoes = append(c.echoes, c)
	return nil
}

func (c *fakeConn) Receive(ctx context.Context) (hpfeeds.Message, error) {
	select {
	case m := <-c.incoming:
		return m, nil
	case <-c.done:
		return hpfeeds.Message{}, c.Err()
	case <-ctx.Done():
		return hpfeeds.Message{}, ctx.Err()
	}
}

func (c *fakeConn) Idle() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.used)
}

func (c *fakeConn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *fakeConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(errors.New("closed by us"))
	return nil
}

// morgue keeps what is put there.
type morgue struct {
	mu      sync.Mutex
	full    bool
	letters []amqp091.Publishing
}

func (m *morgue) Publish(_ context.Context, p amqp091.Publishing) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full {
		return &amqp.Error{Reason: amqp.ReasonRefused, Err: errors.New("amqp: mail is refused by the broker")}
	}
	m.letters = append(m.letters, p)
	return nil
}

// bubble runs a bridge between a queue and a feed, in the test's own time, and stops it when do returns.
func bubble(t *testing.T, cfg Config, q *queue, f *feed, do func(b *Bridge, m *morgue, log *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		settings := hpfeeds.Defaults()
		settings.Host = "feed"
		f.t, f.messages = t, map[string]int{}
		m := &morgue{}
		// The channels are made again: those of a bubble belong to it.
		q.stints = make(chan *amqp.Stint)
		b := New(cfg, settings, q, m, zerolog.New(zerolog.SyncWriter(&log)), prometheus.NewRegistry())
		b.dial = f.dial
		ctx, cancel := context.WithCancel(t.Context())
		f.stop = cancel
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := b.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		}()
		do(b, m, &log)
		cancel()
		<-ended
		q.ended.Wait()
	})
}

func fenced() Config {
	cfg := Defaults()
	cfg.FenceChannel = "fence"
	return cfg
}

// 10,000 mails wait while the broker is away for an hour: nothing is consumed meanwhile, the tries and the words in the log are few, and after its return all
// come, once, within five seconds and a little.
func TestBrokerAwayForAnHour(t *testing.T) {
	for name, cfg := range map[string]Config{"fence": fenced(), "drained": Defaults()} {
		t.Run(name, func(t *testing.T) {
			q, f := newQueue(cfg.Prefetch, mailsOf(10_000)...), &feed{away: true}
			bubble(t, cfg, q, f, func(b *Bridge, _ *morgue, log *bytes.Buffer) {
				time.Sleep(time.Hour)
				synctest.Wait()
				if ok, text := b.Health(); ok || !strings.Contains(text, "connection refused, for 3600 s") {
					t.Errorf("after an hour: %s", text)
				}
				if q.left() != 10_000 || q.pauses != 0 {
					t.Errorf("%d mails are left, and consuming was stopped %d times", q.left(), q.pauses)
				}
				if f.dials < 1800 || f.dials > 10_000 {
					t.Errorf("%d tries in an hour", f.dials)
				}
				if lines := strings.Count(log.String(), "\n"); lines > 61 {
					t.Errorf("%d lines in the log", lines)
				}
				f.mu.Lock()
				f.away = false
				f.mu.Unlock()
				back := time.Now()
				for q.left() > 0 && time.Since(back) < time.Minute {
					time.Sleep(10 * time.Millisecond)
				}
				t.Logf("all have come %s after the return", time.Since(back))
				if q.left() > 0 || len(f.messages) != 10_000 || time.Since(back) > 10*time.Second {
					t.Errorf("%d left, %d came, after %s", q.left(), len(f.messages), time.Since(back))
				}
				for _, n := range f.messages {
					if n != 1 {
						t.Fatalf("a mail came %d times", n)
					}
				}
			})
		})
	}
}

// A broker that dies again and again, soon after it has taken mail, is away each time and refuses nobody: it is back in use within five seconds.
func TestBrokerThatDiesSoonAndOften(t *testing.T) {
	for name, cfg := range map[string]Config{"fence": fenced(), "drained": Defaults()} {
		t.Run(name, func(t *testing.T) {
			mails := mailsOf(20)
			q, f := newQueue(cfg.Prefetch), &feed{}
			bubble(t, cfg, q, f, func(_ *Bridge, _ *morgue, _ *bytes.Buffer) {
				for i, mail := range mails {
					q.add(mail)
					for back := time.Now(); q.left() > 0; time.Sleep(10 * time.Millisecond) {
						if took := time.Since(back); took > 5*time.Second {
							t.Fatalf("mail %d is still in the queue %s after the broker's return", i, took)
						}
					}
					f.die(hpfeeds.ReasonHungUp)
				}
			})
		})
	}
}

// The same without any mail: a token that has come back shows as well that the broker accepts us.
func TestBrokerThatDiesSoonAndOftenWhileIdle(t *testing.T) {
	q, f := newQueue(10), &feed{}
	bubble(t, fenced(), q, f, func(b *Bridge, _ *morgue, _ *bytes.Buffer) {
		for i := range 20 {
			for back := time.Now(); ; time.Sleep(10 * time.Millisecond) {
				if ok, _ := b.Health(); ok {
					break
				}
				if took := time.Since(back); took > 5*time.Second {
					t.Fatalf("death %d: not in use %s after the broker's return", i, took)
				}
			}
			f.die(hpfeeds.ReasonHungUp)
			synctest.Wait()
		}
	})
}

// A proxy cuts connections that are idle for 180 s and says nothing: no mail may be the first thing that is written to one of them.
func TestIdleConnectionIsNotTrusted(t *testing.T) {
	for name, cfg := range map[string]Config{"fence": fenced(), "drained": Defaults()} {
		t.Run(name, func(t *testing.T) {
			mails := mailsOf(5)
			q, f := newQueue(cfg.Prefetch), &feed{cut: 180 * time.Second}
			bubble(t, cfg, q, f, func(_ *Bridge, _ *morgue, _ *bytes.Buffer) {
				for i, mail := range mails {
					time.Sleep(10 * time.Minute)
					q.add(mail)
					time.Sleep(time.Minute)
					synctest.Wait()
					if q.left() != 0 || f.lost != 0 || len(f.messages) != i+1 {
						t.Fatalf("after mail %d: %d left, %d lost, %d came", i, q.left(), f.lost, len(f.messages))
					}
				}
			})
		})
	}
}

// The fence: a mail is acknowledged when its own token has come back, or a later one, and not before: not when it is written, not when an earlier token comes, nor
// somebody else's.
func TestFenceWaitsForTheToken(t *testing.T) {
	mails := mailsOf(3)
	q, f := newQueue(10), &feed{}
	bubble(t, fenced(), q, f, func(_ *Bridge, _ *morgue, _ *bytes.Buffer) {
		expect := func(what string, left int) {
			t.Helper()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if q.left() != left || f.dials != 2 {
				t.Fatalf("%s: %d mails are left, and not %d, after %d connections", what, q.left(), left, f.dials)
			}
		}
		expect("nothing", 0)
		f.deafen(true)
		for i, mail := range mails {
			q.add(mail)
			expect("written", i+1)
		}
		if len(f.messages) != 3 || len(f.kept) != 3 {
			t.Fatalf("%d mails were written, and %d tokens", len(f.messages), len(f.kept))
		}
		f.mu.Lock()
		foreign := append([]byte("hpfeeds-bridge "), bytes.Repeat([]byte("f"), 24+8)...)
		f.echo(hpfeeds.Message{Channel: "fence", Payload: foreign})
		f.echo(hpfeeds.Message{Channel: "fence", Payload: f.kept[2].Payload[:len(f.kept[2].Payload)-1]})
		f.mu.Unlock()
		expect("tokens of somebody else", 3)
		f.hear(1)
		expect("the first token", 2)
		f.hear(2)
		expect("all tokens", 0)
	})
}

// No mail is written to a connection that has not shown that it is good: no token has come back, or, where there are none, the broker may still refuse the login.
func TestNothingBeforeTheProof(t *testing.T) {
	insisted := fenced()
	insisted.Confirm = confirmFence
	for _, row := range []struct {
		name string
		cfg  Config
		feed *feed
	}{
		{"fence", insisted, &feed{deaf: true}},
		{"drained", Defaults(), &feed{refuses: quiet - time.Millisecond}},
	} {
		t.Run(row.name, func(t *testing.T) {
			q := newQueue(10, mailsOf(3)...)
			bubble(t, row.cfg, q, row.feed, func(b *Bridge, _ *morgue, _ *bytes.Buffer) {
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if ok, text := b.Health(); ok || q.left() != 3 || len(row.feed.messages) != 0 || q.pauses != 0 {
					t.Errorf("%d left, %d written: %s", q.left(), len(row.feed.messages), text)
				}
			})
		})
	}
}

// The end of either connection ends both, whether mail is on its way or not, and is known at once.
func TestEitherConnectionEnds(t *testing.T) {
	for _, busy := range []bool{false, true} {
		for which, name := range []string{"the one that publishes", "the one that listens"} {
			t.Run(fmt.Sprintf("%s, busy %v", name, busy), func(t *testing.T) {
				q, f := newQueue(10), &feed{}
				bubble(t, fenced(), q, f, func(b *Bridge, _ *morgue, _ *bytes.Buffer) {
					time.Sleep(time.Second)
					f.deafen(true)
					if busy {
						q.add(mailsOf(1)[0])
					}
					time.Sleep(time.Second)
					f.mu.Lock()
					f.deaf, f.away = false, true
					f.conns[which].fail(&hpfeeds.Error{Reason: hpfeeds.ReasonClosed, Err: errors.New("hpfeeds: lost feed:10000")})
					f.mu.Unlock()
					synctest.Wait()
					if ok, text := b.Health(); ok {
						t.Errorf("just after the end: %s", text)
					}
					f.mu.Lock()
					f.away = false
					f.mu.Unlock()
					time.Sleep(5 * time.Second)
					synctest.Wait()
					if ok, text := b.Health(); !ok || q.left() != 0 {
						t.Errorf("%d mails are left: %s", q.left(), text)
					}
				})
			})
		}
	}
}

// A broker that takes mail, stays, and never shows that it has it, is given up, and the mail is tried again.
func TestBrokerThatGoesQuiet(t *testing.T) {
	q, f := newQueue(10), &feed{}
	bubble(t, fenced(), q, f, func(b *Bridge, _ *morgue, _ *bytes.Buffer) {
		time.Sleep(time.Second)
		f.deafen(true)
		q.add(mailsOf(1)[0])
		time.Sleep(stalledLimit - time.Second)
		if f.dials != 2 || q.left() != 1 {
			t.Fatalf("%d connections, %d mails are left", f.dials, q.left())
		}
		f.deafen(false)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if f.dials != 4 || q.left() != 0 {
			t.Errorf("%d connections, %d mails are left", f.dials, q.left())
		}
	})
}

// A stop takes nothing more, and waits for what is on its way.
func TestStopTakesNothingMore(t *testing.T) {
	mails := mailsOf(2)
	q, f := newQueue(10), &feed{}
	bubble(t, fenced(), q, f, func(_ *Bridge, _ *morgue, _ *bytes.Buffer) {
		time.Sleep(time.Second)
		f.deafen(true)
		q.add(mails[0])
		time.Sleep(time.Second)
		f.stop()
		synctest.Wait()
		q.add(mails[1])
		time.Sleep(time.Second)
		f.hear(len(f.kept))
		time.Sleep(time.Second)
		synctest.Wait()
		if !q.gone["mail-0"] || q.left() != 1 || len(f.messages) != 1 {
			t.Errorf("%d mails are left, %d were written", q.left(), len(f.messages))
		}
	})
}

// A mail that is suspected, with no other that could tell whether it is the mail or the broker, is tried again.
func TestSuspectThatIsAlone(t *testing.T) {
	tries := 0
	q, f := newQueue(10, mailsOf(1)...), &feed{ends: func([]byte) bool { tries++; return tries <= strikes }}
	bubble(t, fenced(), q, f, func(_ *Bridge, m *morgue, _ *bytes.Buffer) {
		time.Sleep(heldLimit + 20*time.Second)
		synctest.Wait()
		if q.left() != 0 || len(m.letters) != 0 || tries != strikes+1 {
			t.Errorf("%d left, %d dead, %d tries", q.left(), len(m.letters), tries)
		}
	})
}

// While the dead-letter queue takes nothing, only few of its mails are taken out of the queue.
func TestFewBurialsAtOnce(t *testing.T) {
	mails := mailsOf(100)
	for i := range mails {
		mails[i].Body = nil
	}
	q, f := newQueue(100, mails...), &feed{}
	bubble(t, fenced(), q, f, func(_ *Bridge, m *morgue, _ *bytes.Buffer) {
		m.mu.Lock()
		m.full = true
		m.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		q.mu.Lock()
		defer q.mu.Unlock()
		if most := maxBurials + 1; q.current.unacked > most { // one is on its way to the bridge
			t.Errorf("%d are taken", q.current.unacked)
		}
	})
}

// A mail that the broker closes the connection over is found and dead-lettered; but a broker that does so over every mail loses none of them.
func TestSuspects(t *testing.T) {
	for name, cfg := range map[string]Config{"fence": fenced(), "drained": Defaults()} {
		t.Run(name+", one mail", func(t *testing.T) {
			mails := mailsOf(300)
			mails[20].Body, mails[21].Body = []byte("poison 1"), []byte("poison 2")
			q := newQueue(cfg.Prefetch, mails...)
			f := &feed{ends: func(payload []byte) bool { return bytes.HasPrefix(payload, []byte("poison")) }}
			bubble(t, cfg, q, f, func(_ *Bridge, m *morgue, log *bytes.Buffer) {
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if q.left() != 0 || len(m.letters) != 2 || len(f.messages) != 298 {
					t.Fatalf("%d left, %d dead, %d came\n%s", q.left(), len(m.letters), len(f.messages), log)
				}
				for _, letter := range m.letters {
					if !bytes.HasPrefix(letter.Body, []byte("poison")) || letter.Headers[HeaderReason] != ReasonRefused {
						t.Errorf("dead: %s %v", letter.Body, letter.Headers)
					}
				}
			})
		})
		t.Run(name+", every mail", func(t *testing.T) {
			q := newQueue(cfg.Prefetch, mailsOf(50)...)
			f := &feed{ends: func([]byte) bool { return true }}
			bubble(t, cfg, q, f, func(_ *Bridge, m *morgue, _ *bytes.Buffer) {
				time.Sleep(time.Hour)
				synctest.Wait()
				if q.left() != 50 || len(m.letters) != 0 {
					t.Fatalf("%d left, %d dead", q.left(), len(m.letters))
				}
			})
		})
	}
}

// A mail that cannot be published stays in the queue until the dead-letter queue has it, also when those behind it have passed.
func TestDeadLetterQueueThatIsFull(t *testing.T) {
	for name, cfg := range map[string]Config{"fence": fenced(), "drained": Defaults()} {
		t.Run(name, func(t *testing.T) {
			mails := mailsOf(100)
			mails[5].Body, mails[50].Body = nil, nil
			q, f := newQueue(cfg.Prefetch, mails...), &feed{}
			bubble(t, cfg, q, f, func(_ *Bridge, m *morgue, _ *bytes.Buffer) {
				m.mu.Lock()
				m.full = true
				m.mu.Unlock()
				time.Sleep(time.Minute)
				synctest.Wait()
				if q.left() != 2 || len(f.messages) != 98 {
					t.Errorf("%d left, %d came", q.left(), len(f.messages))
				}
				m.mu.Lock()
				m.full = false
				m.mu.Unlock()
				time.Sleep(time.Minute)
				synctest.Wait()
				if q.left() != 0 || len(m.letters) != 2 {
					t.Errorf("%d left, %d dead", q.left(), len(m.letters))
				}
				for _, letter := range m.letters {
					if letter.Headers[HeaderReason] != ReasonEmpty {
						t.Errorf("dead: %v", letter.Headers)
					}
				}
			})
		})
	}
}

// Without a fence a mail counts as published when the broker has said nothing against it for as long as trial, or linger once a connection has carried mail:
// one that says no before gets it again, and one that takes longer is believed to have it.
func TestDrainedHearsANo(t *testing.T) {
	for _, row := range []struct {
		name   string
		before int // mails that the broker takes
		after  time.Duration
		left   int
	}{
		{"to the first, in time", 0, trial - look, 1},
		{"to the first, too late", 0, trial + 2*look, 0},
		{"to a later one, in time", 3, linger - look, 1},
		{"to a later one, too late", 3, linger + 2*look, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			q, f := newQueue(10, mailsOf(row.before)...), &feed{}
			bubble(t, Defaults(), q, f, func(_ *Bridge, _ *morgue, _ *bytes.Buffer) {
				time.Sleep(2 * trial)
				synctest.Wait()
				if q.left() != 0 {
					t.Fatalf("%d mails are left before there was a no", q.left())
				}
				f.mu.Lock()
				f.says = row.after
				f.mu.Unlock()
				q.add(amqp091.Delivery{MessageId: "refused", Body: []byte("refused")})
				time.Sleep(row.after + 10*look)
				synctest.Wait()
				if q.left() != row.left {
					t.Errorf("%d mails are left, and not %d", q.left(), row.left)
				}
			})
		})
	}
}

// What is published raw needs no headers: those of the Python package's collectors have none, and whatever somebody has put there, the mail is whole.
func TestRawNeedsNoHeaders(t *testing.T) {
	mails := mailsOf(3)
	mails[1].Headers = amqp091.Table{"contract": "one", "rcpt_to": int32(1)}
	mails[2].Headers = amqp091.Table{"contract": int64(99)}
	q, f := newQueue(10, mails...), &feed{}
	bubble(t, fenced(), q, f, func(_ *Bridge, m *morgue, _ *bytes.Buffer) {
		time.Sleep(time.Second)
		synctest.Wait()
		if q.left() != 0 || len(f.messages) != 3 || len(m.letters) != 0 {
			t.Errorf("%d left, %d came, %d dead", q.left(), len(f.messages), len(m.letters))
		}
	})
}

// Each mail leaves one line with its id.
func TestLogOfAMail(t *testing.T) {
	q, f := newQueue(10, mailsOf(3)...), &feed{}
	bubble(t, fenced(), q, f, func(_ *Bridge, _ *morgue, log *bytes.Buffer) {
		time.Sleep(time.Second)
		synctest.Wait()
		seen := 0
		for line := range strings.Lines(log.String()) {
			var event struct {
				Message   string
				MessageID string `json:"message_id"`
				Size      int
			}
			if err := json.Unmarshal([]byte(line), &event); err != nil {
				t.Fatal(err)
			}
			if event.Message == "bridged" && event.MessageID == fmt.Sprint("mail-", seen) && event.Size == 100 {
				seen++
			}
		}
		if seen != 3 {
			t.Errorf("the log:\n%s", log)
		}
	})
}
