package collector

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/imaptest"
	"spamtraps.internal/imap-collector/internal/session"
	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/rig"
)

// running starts a collector; stop ends it, and returns how long that took.
func running(t testing.TB, r *rigged) (stop func() time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stopped := false
	stop = func() time.Duration {
		if stopped {
			return 0
		}
		stopped = true
		from := time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if memory, window := r.shared.memory.load(), r.shared.window.load(); memory != 0 || window != 0 {
			t.Errorf("%d bytes of memory and %d places of the window are still taken", memory, window)
		}
		return time.Since(from)
	}
	t.Cleanup(func() { stop() })
	return stop
}

func arrives(t testing.TB, broker *imaptest.Broker, bodies ...string) {
	t.Helper()
	rig.Eventually(t, 20*time.Second, "everything is published", func() bool {
		copies := broker.Copies()
		for _, body := range bodies {
			if copies[body] == 0 {
				return false
			}
		}
		return true
	})
}

// New mail comes by IDLE at once, also after the server has gone away and come back.
func TestIdle(t *testing.T) {
	server := imaptest.NewMemory(t, imaptest.Caps())
	bodies := mails(30, 400)
	server.Deliver(t, "INBOX", bodies[:10]...)
	r := collect(t, Config{}, &imaptest.Broker{}, newStore(t, ""), imaptest.Account(server.Addr))
	stop := running(t, r)
	arrives(t, r.broker, bodies[:10]...)
	idles := func() int { return strings.Count(strings.Join(server.Commands(), "\n"), "IDLE") }
	rig.Eventually(t, 10*time.Second, "it idles", func() bool { return idles() > 0 })
	server.Deliver(t, "INBOX", bodies[10:20]...)
	// The library's server does not tell of what came in the moment before it listens, until something else happens: a flag.
	rig.Eventually(t, 20*time.Second, "what is new is published", func() bool {
		server.Mark(t, "INBOX", 1, `\Flagged`)
		return len(r.broker.Copies()) == 20
	})
	server.Drop()
	server.Deliver(t, "INBOX", bodies[20:]...)
	arrives(t, r.broker, bodies...)
	rig.Eventually(t, 10*time.Second, "all is marked", func() bool {
		for _, mail := range server.Mails(t, "INBOX") {
			if !mail.Seen() {
				return false
			}
		}
		return true
	})
	if took := stop(); took > 5*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	expectAll(t, r.broker, bodies, 1)
}

// The UIDs of a folder mean other mails: they are collected, with other ids.
func TestUIDValidityChanges(t *testing.T) {
	server := imaptest.NewMemory(t, imaptest.Caps())
	remake := func(bodies ...string) {
		_ = server.User.Delete("Trap") // the first time there is none
		if err := server.User.Create("Trap", nil); err != nil {
			t.Fatal(err)
		}
		server.Deliver(t, "Trap", bodies...)
	}
	first, second := mails(5, 300), mails(8, 301)
	remake(first...)
	a := imaptest.Account(server.Addr, func(a *account.Account) { a.Folders, a.Fetch = []string{"Trap"}, account.FetchNew })
	r := collect(t, Config{}, &imaptest.Broker{}, newStore(t, t.TempDir()), a)
	running(t, r)
	arrives(t, r.broker, first...)
	remake(second...)
	server.Drop()
	arrives(t, r.broker, second...)
	expectAll(t, r.broker, append(first, second...), 1)
	ids := make(map[string]bool)
	for _, m := range r.broker.Received() {
		if ids[m.MessageId] {
			t.Errorf("%s came twice", m.MessageId)
		}
		ids[m.MessageId] = true
	}
	if !strings.Contains(r.log.String(), "UIDVALIDITY") {
		t.Error("the log says nothing of it")
	}
}

// While the broker takes nothing, nothing is fetched in a loop and nothing is marked; what was fetched is not fetched again.
func TestBrokerAway(t *testing.T) {
	server := imaptest.NewMemory(t, imaptest.Caps())
	bodies := mails(100, 400)
	server.Deliver(t, "INBOX", bodies...)
	broker := &imaptest.Broker{}
	away := func(context.Context, amqp091.Publishing) error {
		return &amqp.Error{Reason: amqp.ReasonDown, Err: errors.New("the broker is away")}
	}
	broker.Answer(away)
	r := collect(t, Config{Window: 16}, broker, newStore(t, ""), imaptest.Account(server.Addr))
	running(t, r)
	fetches := func() int { return strings.Count(strings.Join(server.Commands(), "\n"), "BODY.PEEK") }
	rig.Eventually(t, 10*time.Second, "something is fetched", func() bool { return fetches() > 0 })
	broker.SetReady(errors.New("away"))
	rig.Eventually(t, 10*time.Second, "the broker is known to be away", func() bool { return r.shared.gate.ready() != nil })
	before := fetches()
	for uid, mail := range server.Mails(t, "INBOX") {
		if mail.Seen() {
			t.Errorf("mail %d is marked, and no broker has it", uid)
		}
	}
	broker.SetReady(nil)
	broker.Answer(nil)
	arrives(t, broker, bodies...)
	expectAll(t, broker, bodies, 1)
	if again := fetches() - before; again > 100/4+1 {
		t.Errorf("%d commands fetched what was fetched before", again)
	}
}

// A mailbox that does not work is nobody else's trouble, and is named with its reason.
func TestOneBadMailbox(t *testing.T) {
	good, bad := imaptest.NewMemory(t, imaptest.Caps()), imaptest.NewMemory(t, imaptest.Caps())
	bad.Answer(func(line string) string {
		if strings.HasPrefix(line, "AUTHENTICATE") {
			return "NO [AUTHENTICATIONFAILED] wrong: " + line
		}
		return ""
	})
	bodies := mails(20, 400)
	good.Deliver(t, "INBOX", bodies...)
	rename := func(name string) func(*account.Account) {
		return func(a *account.Account) { a.Name, a.ID = name, name }
	}
	r := collect(t, Config{StaleAfter: time.Nanosecond}, &imaptest.Broker{}, newStore(t, ""),
		imaptest.Account(bad.Addr, rename("bad-1")), imaptest.Account(good.Addr, rename("good-1")))
	running(t, r)
	arrives(t, r.broker, bodies...)
	rig.Eventually(t, 10*time.Second, "the bad one is named", func() bool {
		_, text := r.Health()
		return strings.Contains(text, "bad-1 not looked at for") && strings.Contains(text, "log in")
	})
	if n := strings.Count(strings.Join(bad.Commands(), "\n"), "AUTHENTICATE"); n != 1 {
		t.Errorf("%d logins with a wrong password", n)
	}
}

// timed runs a collector with one mailbox on a server in the bubble, and returns when the server was told what. It ends after so long.
func timed(t *testing.T, server *imaptest.Memory, network *imaptest.Net, lasts time.Duration, change ...func(*account.Account)) (*rigged, map[string][]time.Duration) {
	t.Helper()
	from := time.Now()
	var mu sync.Mutex // the server's goroutines write
	told := make(map[string][]time.Duration)
	server.OnCommand(func(_ int, line string) bool {
		mu.Lock()
		defer mu.Unlock()
		verb, _, _ := strings.Cut(line, " ")
		told[verb] = append(told[verb], time.Since(from).Round(time.Second))
		return true
	})
	cfg := Config{Dialer: &session.Dialer{Dial: network.Dial}}
	r := collect(t, cfg, &imaptest.Broker{}, newStore(t, ""), imaptest.Account("server.example:993", change...))
	stop := running(t, r)
	time.Sleep(lasts)
	stop()
	mu.Lock()
	defer mu.Unlock()
	return r, maps.Clone(told)
}

func TestWrongPasswordIsTriedSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := imaptest.NewNet()
		server := imaptest.NewMemoryOn(t, network, imaptest.Caps())
		server.Answer(func(line string) string {
			if strings.HasPrefix(line, "AUTHENTICATE") {
				return "NO no"
			}
			return ""
		})
		_, told := timed(t, server, network, 5*time.Hour)
		tries := told["AUTHENTICATE"]
		if len(tries) < 6 || len(tries) > 12 {
			t.Errorf("tried at %v", tries)
		}
		for i := 1; i < len(tries); i++ {
			if pause := tries[i] - tries[i-1]; pause < 5*time.Minute || pause > time.Hour+time.Minute {
				t.Errorf("tried at %v", tries)
			}
		}
		server.Stop()
	})
}

func TestThrottlingIsObeyed(t *testing.T) {
	for _, c := range []struct{ verb, answer string }{
		{"AUTHENTICATE", "NO [LIMIT] too many"}, {"UID", "NO [THROTTLED] slow down"}, {"SELECT", "NO [OVERQUOTA] later"},
	} {
		t.Run(c.answer, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := imaptest.NewNet()
				server := imaptest.NewMemoryOn(t, network, imaptest.Caps())
				server.Deliver(t, "INBOX", mails(3, 100)...)
				server.Answer(func(line string) string {
					if strings.HasPrefix(line, c.verb) {
						return c.answer
					}
					return ""
				})
				_, told := timed(t, server, network, time.Hour)
				tries := told[c.verb]
				if len(tries) < 3 {
					t.Errorf("tried at %v", tries)
				}
				for i := 1; i < len(tries); i++ {
					if tries[i]-tries[i-1] < time.Minute {
						t.Errorf("tried at %v", tries)
						break
					}
				}
				server.Stop()
			})
		})
	}
}

// IDLE is renewed in time, and every folder is looked at beside it.
func TestPollFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := imaptest.NewNet()
		server := imaptest.NewMemoryOn(t, network, imaptest.Caps())
		if err := server.User.Create("Junk", nil); err != nil {
			t.Fatal(err)
		}
		_, told := timed(t, server, network, 3*time.Hour+time.Minute, func(a *account.Account) { a.PollInterval = time.Hour })
		for i := 1; i < len(told["IDLE"]); i++ {
			if lasted := told["IDLE"][i] - told["IDLE"][i-1]; lasted >= 29*time.Minute {
				t.Errorf("one IDLE lasted %s", lasted)
			}
		}
		if len(told["SELECT"]) != 8 { // two folders, at once and after each hour
			t.Errorf("folders were selected at %v", told["SELECT"])
		}
		if len(told["AUTHENTICATE"]) != 1 {
			t.Errorf("%d logins", len(told["AUTHENTICATE"]))
		}
		server.Stop()
	})
}

// Without IDLE there is the poll.
func TestWithoutIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := imaptest.NewNet()
		server := imaptest.NewMemoryOn(t, network, imaptest.Caps())
		server.Hide(" IDLE")
		go func() {
			time.Sleep(7 * time.Minute)
			server.Deliver(t, "INBOX", mails(3, 100)...)
		}()
		r, told := timed(t, server, network, 13*time.Minute)
		expectAll(t, r.broker, mails(3, 100), 1)
		if len(told["IDLE"]) > 0 {
			t.Error("IDLE was said to a server that does not offer it")
		}
		server.Stop()
	})
}

// Many mailboxes of one host share few connections, and each has its turn.
func TestConnectionsPerHost(t *testing.T) {
	server := imaptest.NewMemory(t, imaptest.Caps())
	var accounts []account.Account
	for i := range 10 {
		accounts = append(accounts, imaptest.Account(server.Addr, func(a *account.Account) {
			a.Name = fmt.Sprintf("trap-%d", i)
			a.ID = a.Name
		}))
	}
	// Counted on our side: the server notices the end of one connection after the next has begun.
	counter := &connCounter{}
	r := collect(t, Config{MaxPerHost: 2, LoginRate: 1e6, Dialer: &session.Dialer{Dial: counter.dial}}, &imaptest.Broker{}, newStore(t, ""), accounts...)
	running(t, r)
	rig.Eventually(t, 20*time.Second, "each was looked at", func() bool {
		for _, m := range r.mailboxes {
			m.mu.Lock()
			looked := !m.lastLook.IsZero()
			m.mu.Unlock()
			if !looked {
				return false
			}
		}
		return true
	})
	counter.mu.Lock()
	defer counter.mu.Unlock()
	if counter.most != 2 {
		t.Errorf("%d connections at once, want 2", counter.most)
	}
}

// connCounter dials, and counts how many connections are open at once.
type connCounter struct {
	mu        sync.Mutex
	now, most int
}

func (c *connCounter) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c.change(1)
	return &countedConn{Conn: conn, closed: sync.OnceFunc(func() { c.change(-1) })}, nil
}

func (c *connCounter) change(by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += by
	c.most = max(c.most, c.now)
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}
