package amqp

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/amqp/amqptest"
	"spamtraps.internal/libs/rig"
)

// object asks the broker's management for an exchange or queue of the test's vhost.
func object(b *rig.Broker, kind, name string) (found struct {
	Type      string
	Durable   bool
	Arguments map[string]any
},
) {
	b.API(http.MethodGet, "/api/"+kind+"/"+url.PathEscape(b.VHost)+"/"+name, nil, &found)
	return found
}

// admin does something on a channel of the administrator's.
func admin(t testing.TB, b *rig.Broker, do func(*amqp091.Channel) error) {
	t.Helper()
	conn, err := amqp091.Dial(b.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err == nil {
		err = do(ch)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// limited returns settings of a user of its own with the given rights.
func limited(b *rig.Broker, configure, write, read string) Config {
	const name, password = "writer", "open sesame"
	user := "test-" + b.VHost + "-" + name
	b.MakeUser(user, password)
	b.Permit(user, b.VHost, configure, write, read)
	cfg := Defaults()
	cfg.TLS = false
	cfg.Host, cfg.Port, cfg.VHost, cfg.Ident = []string{b.Host}, b.Port, b.VHost, user
	_ = cfg.Secret.UnmarshalText([]byte(password))
	return cfg
}

func TestAbsentTopologyIsDeclared(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	p := run(t, settings(b.URL()))
	p.waitReady(testPatience)
	if e := object(b, "exchanges", "spam"); e.Type != "topic" || !e.Durable {
		t.Errorf("exchange: %+v", e)
	}
	if q := object(b, "queues", "spam.mails"); q.Arguments["x-queue-type"] != "quorum" || !q.Durable {
		t.Errorf("queue: %+v", q)
	}
	if err := p.Publish(t.Context(), message("a", 10)); err != nil {
		t.Fatal(err)
	}
	if copies := amqptest.Queue(b.URL(), "spam.mails").Copies(t); copies["a"] != 1 {
		t.Errorf("the queue holds %v", copies)
	}
}

func TestExchangeThatIsNotDurable(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	cfg := settings(b.URL())
	cfg.ExchangeDurable, cfg.QueueType = false, "classic"
	run(t, cfg).waitReady(testPatience)
	if e := object(b, "exchanges", "spam"); e.Durable {
		t.Errorf("exchange: %+v", e)
	}
}

// What others have declared in their own way is used as it is.
func TestPresentTopologyIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	admin(t, b, func(ch *amqp091.Channel) error {
		if err := ch.ExchangeDeclare("spam", "direct", false, false, false, false, nil); err != nil {
			return err
		}
		_, err := ch.QueueDeclare("spam.mails", true, false, false, false, amqp091.Table{"x-max-length": 1000})
		return err
	})
	p := run(t, settings(b.URL()))
	p.waitReady(testPatience)
	if err := p.Publish(t.Context(), message("a", 10)); err != nil {
		t.Fatal(err)
	}
}

// The least rights that are enough where the broker's definitions own the topology: to write to the exchange.
func TestLeastRights(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	run(t, settings(b.URL())).waitReady(testPatience) // the owner
	p := run(t, limited(b, "^$", "^spam$", "^$"))
	p.waitReady(testPatience)
	if err := p.Publish(t.Context(), message("a", 10)); err != nil {
		t.Fatal(err)
	}
	b.CloseAllConnections()
	rig.Eventually(t, 5*time.Second, "a second connection", func() bool { return p.connections() == 2 })
	if n := strings.Count(p.log.text(), "no right to bind"); n != 1 {
		t.Errorf("it is said %d times that the broker's definitions are trusted:\n%s", n, p.log.text())
	}
}

func TestMissingRights(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		queue  string
		rights [3]string
		says   string
	}{
		{
			"exchange", "spam.mails",
			[3]string{"^$", ".*", ".*"},
			`cannot declare exchange "spam", which is absent: user "%" lacks the right to configure it (403)`,
		},
		{
			"queue", "spam.mails",
			[3]string{"^spam$", ".*", ".*"},
			`cannot declare queue "spam.mails", which is absent: user "%" lacks the right to configure it (403)`,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := rig.SharedBroker(t)
			cfg := limited(b, row.rights[0], row.rights[1], row.rights[2])
			cfg.Queue = row.queue
			p := run(t, cfg)
			refused(t, p, strings.ReplaceAll(row.says, "%", cfg.Ident))
		})
	}
}

// What goes to one queue goes nowhere else, and makes nothing.
func TestToQueue(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	p := run(t, settings(b.URL()).ToQueue("analyst"))
	refused(t, p, `cannot look up queue "analyst": NOT_FOUND - no queue 'analyst' in vhost '`+b.VHost+`'`)
	admin(t, b, func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclare("analyst", true, false, false, false, nil)
		return err
	})
	p.waitReady(testPatience)
	if err := p.Publish(t.Context(), message("a", 10)); err != nil {
		t.Fatal(err)
	}
	if copies := amqptest.Queue(b.URL(), "analyst").Copies(t); copies["a"] != 1 || len(copies) != 1 {
		t.Errorf("the queue has %v", copies)
	}
	admin(t, b, func(ch *amqp091.Channel) error {
		if err := ch.ExchangeDeclarePassive("spam", "topic", true, false, false, false, nil); !answered(err, amqp091.NotFound) {
			t.Errorf("there is an exchange: %v", err)
		}
		return nil
	})
}

// A user who may do everything but write is told so when it publishes, and not asked to come back at once.
func TestNoRightToWrite(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	run(t, settings(b.URL())).waitReady(testPatience)
	p := run(t, limited(b, ".*", "^spam.mails$", ".*"))
	p.waitReady(testPatience)
	if err := p.Publish(t.Context(), message("a", 10)); reason(err) != ReasonDown || !strings.Contains(err.Error(), "ACCESS_REFUSED") {
		t.Fatalf("got %v", err)
	}
}

func TestRefusedLogin(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	login := limited(b, "", "", "")
	for _, row := range []struct {
		name   string
		change func(*Config)
		says   string
	}{
		{"password", func(c *Config) { _ = c.Secret.UnmarshalText([]byte("not-the-password")) }, "a wrong name or password"},
		{"vhost", func(c *Config) { c.VHost = "nowhere" }, "vhost nowhere not found"},
	} {
		t.Run(row.name, func(t *testing.T) {
			cfg := login
			row.change(&cfg)
			p := run(t, cfg)
			refused(t, p, row.says)
			if !strings.Contains(p.State().Text, "refuses user") {
				t.Errorf("state: %s", p.State())
			}
		})
	}
}

// Without a queue bound nothing passes; a queue that is bound later is found within seconds.
func TestUnroutable(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	cfg := settings(b.URL())
	cfg.Queue = ""
	p := run(t, cfg)
	p.waitReady(testPatience)
	c := newCrowd(p, 300, 100)
	rig.Eventually(t, 10*time.Second, "a return shows in the state", func() bool {
		return strings.Contains(p.State().Text, `no queue is bound to exchange "spam" for routing key "spam.mails"`)
	})
	t.Log(p.State())
	if n := c.count(); n != 0 {
		t.Errorf("%d messages without a queue were accepted", n)
	}
	inbox := amqptest.NewInbox(t, b.URL(), "spam", "spam.mails")
	c.more(t, 1000, 5*time.Second)
	c.end()
	account(t, inbox.Copies(t), c, 0)
	if warnings := p.log.at("warn"); len(warnings) != 1 {
		t.Errorf("warnings: %v", warnings)
	}
}

// Two of the same id in flight, of which one comes back: neither counts as arrived.
func TestReturnsOfTheSameID(t *testing.T) {
	l := &lane{returns: make(chan amqp091.Return, 2), inFlight: map[*flight]struct{}{}}
	one, two, other := message("a", 1), message("a", 2), message("b", 3)
	flights := []*flight{{message: &one}, {message: &two}, {message: &other}}
	for _, f := range flights {
		l.inFlight[f] = struct{}{}
	}
	l.returns <- amqp091.Return{MessageId: "a", ReplyText: "NO_ROUTE", ReplyCode: 312}
	for i, want := range []string{"NO_ROUTE (312)", "NO_ROUTE (312)", ""} {
		if got := l.land(flights[i]); got != want {
			t.Errorf("flight %d: %q, want %q", i, got, want)
		}
	}
	if len(l.inFlight) != 0 {
		t.Errorf("%d flights are left", len(l.inFlight))
	}
}

// Whatever of the topology is deleted while mail flows is made again, and what was accepted is in the queue.
func TestTopologyDeletedMidway(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		remove func(*amqp091.Channel) error
	}{
		{"exchange", func(ch *amqp091.Channel) error { return ch.ExchangeDelete("spam", false, false) }},
		{"binding", func(ch *amqp091.Channel) error { return ch.QueueUnbind("spam.mails", "spam.mails", "spam", nil) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := rig.SharedBroker(t)
			p := run(t, settings(b.URL()))
			p.waitReady(testPatience)
			c := newCrowd(p, 50, 1000)
			c.more(t, 200, 10*time.Second)
			for range 3 {
				admin(t, b, row.remove)
				c.more(t, 200, 10*time.Second)
			}
			c.end()
			account(t, amqptest.Queue(b.URL(), "spam.mails").Copies(t), c, 3*p.cfg.InFlight)
			t.Log(p.log.text())
		})
	}
}

// A queue that is deleted takes its mail with it, but the next one finds a queue again.
func TestQueueDeletedMidway(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	p := run(t, settings(b.URL()))
	p.waitReady(testPatience)
	c := newCrowd(p, 50, 1000)
	c.more(t, 200, 10*time.Second)
	admin(t, b, func(ch *amqp091.Channel) error {
		_, err := ch.QueueDelete("spam.mails", false, false, false)
		return err
	})
	c.more(t, 200, 10*time.Second)
	c.end()
	if q := object(b, "queues", "spam.mails"); !q.Durable {
		t.Errorf("queue: %+v", q)
	}
}

// A full queue nacks. Nothing that it refused counts as accepted.
func TestFullQueue(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	admin(t, b, func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclare("spam.mails", true, false, false, false,
			amqp091.Table{"x-max-length": 10, "x-overflow": "reject-publish"})
		return err
	})
	p := run(t, settings(b.URL()))
	p.waitReady(testPatience)
	c := newCrowd(p, 50, 1000)
	rig.Eventually(t, 10*time.Second, "the nack shows in the state", func() bool {
		return strings.Contains(p.State().Text, "mail is refused by the broker")
	})
	t.Log(p.State())
	admin(t, b, func(ch *amqp091.Channel) error {
		_, err := ch.QueuePurge("spam.mails", false)
		return err
	})
	c.more(t, 1, 10*time.Second)
	c.end()
	if warnings := p.log.at("warn"); len(warnings) == 0 || len(warnings) > 2 {
		t.Errorf("warnings: %v", warnings)
	}
}

// One full side queue must not fill the other: what is nacked may lie there already.
func TestFullSideQueueMakesFewCopies(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	p := run(t, settings(b.URL()))
	p.waitReady(testPatience)
	admin(t, b, func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclare("side", true, false, false, false, amqp091.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
		if err != nil {
			return err
		}
		return ch.QueueBind("side", "spam.mails", "spam", false, nil)
	})
	const callers = 40
	c := newCrowd(p, callers, 1000)
	rig.Eventually(t, 20*time.Second, "every caller has tried fifty times", func() bool { return c.calls() >= 50*callers })
	c.end()
	extra := 0
	for _, n := range amqptest.Queue(b.URL(), "spam.mails").Copies(t) {
		extra += n - 1
	}
	t.Logf("%d extra copies, failures %v", extra, c.failures)
	if extra > callers+5 { // one window, and a few single tries
		t.Errorf("%d extra copies, failures %v", extra, c.failures)
	}
}
