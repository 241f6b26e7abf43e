package e2e

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/rig"
)

// brokerUsers are the users that the image makes.
var brokerUsers = []string{"admin", "bridge", "collector", "reader"}

// queueMaxBytes is small enough to be filled by a test.
const queueMaxBytes = 256 << 10

// spamBroker is the project's RabbitMQ, run as Compose runs it.
type spamBroker struct{ *rig.Broker }

func TestRabbitMQ(t *testing.T) {
	b := &spamBroker{rig.OwnBroker(t, rig.WithEnv("RABBITMQ_LOG_LEVEL=debug"), rig.WithEnv("SPAM_QUEUE_MAX_BYTES=256KiB"),
		func(t testing.TB, o *rig.Options) {
			t.Helper()
			o.Args = append(o.Args, asCompose(t, "rabbitmq")...)
		})}
	t.Run("knows its own users only", b.knowsItsOwnUsersOnly)
	t.Run("gives each user what it needs", b.givesEachUserWhatItNeeds)
	t.Run("has the queues that mail needs", b.hasTheQueuesThatMailNeeds)
	t.Run("keeps what a reader gives up", b.keepsWhatAReaderGivesUp)
	t.Run("refuses what does not fit", b.refusesWhatDoesNotFit)
	t.Run("tells nobody a password", b.tellsNobodyAPassword)
	t.Run("survives a kill and a lost password", b.survivesAKillAndALostPassword)
}

// In the first seconds of a new broker somebody runs one of its tools, which must not keep it from starting; and it is killed as soon as it is
// healthy and has confirmed a mail, which it must have kept.
func TestRabbitMQsFirstSeconds(t *testing.T) {
	c := rig.Run(t, rig.Image(t, "rabbitmq"), rig.Options{Args: append([]string{"--hostname", "rabbitmq"}, asCompose(t, "rabbitmq")...)})
	_ = exec.CommandContext(t.Context(), "docker", "exec", c.Name, "rabbitmqctl", "status").Run() // there is no broker yet to tell
	healthy(t, c)
	conn, err := amqp091.Dial("amqp://collector:" + c.Exec("cat", "/secrets/collector/password") + "@" + ip(t, c) + ":5672/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := publish(t.Context(), channel(t, conn), "spam", "spam.mails", "a mail"); err != nil {
		t.Fatal(err)
	}
	c.Kill()
	c.Start()
	healthy(t, c)
	rig.Eventually(t, time.Minute, "the mail is there", func() bool {
		return slices.Contains(strings.Split(c.Exec("rabbitmqctl", "-q", "list_queues", "name", "messages"), "\n"), "spam.mails\t1")
	})
}

// With drop-head a backlog that nobody reads holds nobody back: all mail is taken, a reader's own queue gets each, and the backlog keeps the newest.
func TestBacklogThatHoldsNobodyBack(t *testing.T) {
	b := &spamBroker{rig.OwnBroker(t, rig.WithEnv("SPAM_QUEUE_MAX_BYTES=256KiB"), rig.WithEnv("SPAM_QUEUE_OVERFLOW=drop-head"))}
	reader := channel(t, b.login(t, "reader"))
	if _, err := reader.QueueDeclare("reader.all", true, false, false, false, amqp091.Table{"x-queue-type": "quorum"}); err != nil {
		t.Fatal(err)
	}
	if err := reader.QueueBind("reader.all", "spam.mails", "spam", false, nil); err != nil {
		t.Fatal(err)
	}
	const mails = 40
	body := strings.Repeat("x", queueMaxBytes/10)
	collector := b.login(t, "collector")
	for i := range mails {
		if err := publish(t.Context(), channel(t, collector), "spam", "spam.mails", body); err != nil {
			t.Fatalf("mail %d of %d bytes, into a queue of %d: %v", i, len(body), queueMaxBytes, err)
		}
	}
	rig.Eventually(t, 30*time.Second, "the reader's queue has all, the backlog the newest, and spam.dead nothing", func() bool {
		messages := map[string]int{}
		for line := range strings.Lines(b.Exec("rabbitmqctl", "-q", "list_queues", "name", "messages")) {
			name, text, _ := strings.Cut(strings.TrimSpace(line), "\t")
			messages[name], _ = strconv.Atoi(text)
		}
		kept := messages["spam.mails"]
		return messages["reader.all"] == mails && 0 < kept && kept <= 10 && messages["spam.dead"] == 0
	})
}

// dial logs in as one of the image's users.
func (b *spamBroker) dial(t *testing.T, user, password string) (*amqp091.Connection, error) {
	t.Helper()
	u := url.URL{Scheme: "amqp", User: url.UserPassword(user, password), Host: b.Address()}
	conn, err := amqp091.Dial(u.String() + "/")
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

func (b *spamBroker) login(t *testing.T, user string) *amqp091.Connection {
	t.Helper()
	conn, err := b.dial(t, user, b.UserPassword(user))
	if err != nil {
		t.Fatalf("%s cannot log in: %v", user, err)
	}
	return conn
}

func channel(t *testing.T, conn *amqp091.Connection) *amqp091.Channel {
	t.Helper()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func accessRefused(err error) bool {
	var e *amqp091.Error
	return errors.As(err, &e) && e.Code == amqp091.AccessRefused
}

// errNotTaken is a publish that the broker nacked or sent back.
var errNotTaken = errors.New("nacked or unroutable")

// publish returns when the broker has confirmed and routed a mail; a closed channel gives the reason.
func publish(ctx context.Context, ch *amqp091.Channel, exchange, key, body string) error {
	closed := ch.NotifyClose(make(chan *amqp091.Error, 1))
	returned := ch.NotifyReturn(make(chan amqp091.Return, 1))
	if err := ch.Confirm(false); err != nil {
		return err
	}
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, exchange, key, true, false,
		amqp091.Publishing{Body: []byte(body), DeliveryMode: amqp091.Persistent})
	if err != nil {
		return err
	}
	select {
	case reason := <-closed:
		return reason
	case <-confirm.Done():
	}
	// The broker sends a mail back before it confirms it.
	if len(returned) > 0 || !confirm.Acked() {
		return errNotTaken
	}
	return nil
}

func (b *spamBroker) knowsItsOwnUsersOnly(t *testing.T) {
	var users []struct{ Name, Tags any }
	b.API(http.MethodGet, "/api/users", nil, &users)
	var names []string
	for _, user := range users {
		names = append(names, user.Name.(string))
	}
	slices.Sort(names)
	if !slices.Equal(names, brokerUsers) {
		t.Errorf("the users are %v, want %v", names, brokerUsers)
	}
	if _, err := b.dial(t, "guest", "guest"); !accessRefused(err) {
		t.Errorf("login as guest: %v", err)
	}
}

func (b *spamBroker) givesEachUserWhatItNeeds(t *testing.T) {
	type act func(ch *amqp091.Channel) error
	publishTo := func(exchange, key string) act {
		return func(ch *amqp091.Channel) error { return publish(t.Context(), ch, exchange, key, "m") }
	}
	consume := func(queue string) act {
		return func(ch *amqp091.Channel) error {
			_, err := ch.Consume(queue, "", false, false, false, false, nil)
			return err
		}
	}
	get := func(queue string) act {
		return func(ch *amqp091.Channel) error { _, _, err := ch.Get(queue, false); return err }
	}
	declare := func(queue string, args amqp091.Table) act {
		return func(ch *amqp091.Channel) error {
			_, err := ch.QueueDeclare(queue, true, false, false, false, args)
			return err
		}
	}
	look := func(queue string) act {
		return func(ch *amqp091.Channel) error {
			_, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			return err
		}
	}
	lookAtExchange := func(ch *amqp091.Channel) error {
		return ch.ExchangeDeclarePassive("spam", "topic", true, false, false, false, nil)
	}
	declareExchange := func(ch *amqp091.Channel) error {
		return ch.ExchangeDeclare("spam", "topic", true, false, false, false, nil)
	}
	bind := func(queue, exchange string) act {
		return func(ch *amqp091.Channel) error { return ch.QueueBind(queue, "spam.mails", exchange, false, nil) }
	}
	purge := func(queue string) act {
		return func(ch *amqp091.Channel) error { _, err := ch.QueuePurge(queue, false); return err }
	}
	drop := func(queue string) act {
		return func(ch *amqp091.Channel) error { _, err := ch.QueueDelete(queue, false, false, false); return err }
	}
	quorum := amqp091.Table{"x-queue-type": "quorum"}

	rows := []struct {
		user, what string
		do         act
		allowed    bool
	}{
		{"collector", "publish mail", publishTo("spam", "spam.mails"), true},
		{"collector", "look at the exchange", lookAtExchange, true},
		{"collector", "look at the queue", look("spam.mails"), true},
		{"collector", "publish another topic", publishTo("spam", "ham.mails"), false},
		{"collector", "publish to the default exchange", publishTo("", "spam.mails"), false},
		{"collector", "publish dead letters", publishTo("spam.dead", ""), false},
		{"collector", "declare the exchange", declareExchange, false},
		{"collector", "declare the queue", declare("spam.mails", quorum), false},
		{"collector", "declare a queue", declare("other", nil), false},
		{"collector", "bind the queue", bind("spam.mails", "spam"), false},
		{"collector", "consume mail", consume("spam.mails"), false},
		{"collector", "get mail", get("spam.mails"), false},
		{"collector", "purge mail", purge("spam.mails"), false},
		{"collector", "delete the queue", drop("spam.mails"), false},

		{"bridge", "declare its queue", declare("spam.hpfeeds", quorum), true},
		{"bridge", "bind its queue", bind("spam.hpfeeds", "spam"), true},
		{"bridge", "consume its queue", consume("spam.hpfeeds"), true},
		{"bridge", "publish dead letters", publishTo("spam.dead", ""), true},
		{"bridge", "delete its queue", drop("spam.hpfeeds"), true},
		{"bridge", "publish mail", publishTo("spam", "spam.mails"), false},
		{"bridge", "publish to the default exchange", publishTo("", "spam.mails"), false},
		{"bridge", "declare a queue", declare("other", nil), false},
		{"bridge", "declare the exchange", declareExchange, false},
		{"bridge", "consume mail", consume("spam.mails"), false},
		{"bridge", "consume dead letters", consume("spam.dead"), true},
		{"bridge", "purge mail", purge("spam.mails"), false},
		{"bridge", "delete the queue", drop("spam.mails"), false},

		{"reader", "look at the queue", look("spam.mails"), true},
		{"reader", "consume mail", consume("spam.mails"), true},
		{"reader", "declare a queue", declare("reader.one", quorum), true},
		{"reader", "bind its queue", bind("reader.one", "spam"), true},
		{"reader", "consume its queue", consume("reader.one"), true},
		{"reader", "delete its queue", drop("reader.one"), true},
		{"reader", "let the broker name a queue", func(ch *amqp091.Channel) error {
			q, err := ch.QueueDeclare("", false, true, true, false, nil)
			if err != nil {
				return err
			}
			return ch.QueueBind(q.Name, "spam.mails", "spam", false, nil)
		}, true},
		{"reader", "declare another queue", declare("other", nil), false},
		{"reader", "declare the exchange", declareExchange, false},
		{"reader", "publish mail", publishTo("spam", "spam.mails"), false},
		{"reader", "publish to the default exchange", publishTo("", "spam.mails"), false},
		{"reader", "publish dead letters", publishTo("spam.dead", ""), false},
		{"reader", "bind the queue to dead letters", bind("reader.one", "spam.dead"), false},
		{"reader", "consume dead letters", consume("spam.dead"), false},
		{"reader", "consume the bridge's queue", consume("spam.hpfeeds"), false},
		{"reader", "delete the queue", drop("spam.mails"), false},
	}
	connections := map[string]*amqp091.Connection{}
	for _, user := range brokerUsers {
		connections[user] = b.login(t, user)
	}
	for _, row := range rows {
		ch := channel(t, connections[row.user])
		err := row.do(ch)
		if row.allowed && err != nil || !row.allowed && !accessRefused(err) {
			t.Errorf("%s may %s is %v, but the answer is: %v", row.user, row.what, row.allowed, err)
		}
		_ = ch.Close()
	}
	for _, user := range brokerUsers {
		_ = connections[user].Close()
	}
	b.empty(t)
}

// empty empties the two queues.
func (b *spamBroker) empty(t *testing.T) {
	t.Helper()
	for _, queue := range []string{"spam.mails", "spam.dead"} {
		b.API(http.MethodDelete, "/api/queues/%2F/"+queue+"/contents", nil, nil)
	}
}

// The definitions own the topology: the services only look it up.
func (b *spamBroker) hasTheQueuesThatMailNeeds(t *testing.T) {
	var queues []struct {
		Name, Type string
		Durable    bool
	}
	b.API(http.MethodGet, "/api/queues/%2F", nil, &queues)
	if len(queues) != 2 {
		t.Errorf("the queues are %+v", queues)
	}
	for _, q := range queues {
		if q.Type != "quorum" || !q.Durable || q.Name != "spam.mails" && q.Name != "spam.dead" {
			t.Errorf("there is the queue %+v", q)
		}
	}
	var bindings []struct {
		Destination string
		RoutingKey  string `json:"routing_key"`
	}
	b.API(http.MethodGet, "/api/exchanges/%2F/spam/bindings/source", nil, &bindings)
	if len(bindings) != 1 || bindings[0].Destination != "spam.mails" || bindings[0].RoutingKey != "spam.mails" {
		t.Errorf("the bindings of exchange spam are %+v", bindings)
	}
	// A key of the collector's own that no queue is bound with comes back, and is not mistaken for kept.
	if err := publish(t.Context(), channel(t, b.login(t, "collector")), "spam", "spam.other", "m"); !errors.Is(err, errNotTaken) {
		t.Errorf("publish with another key: %v", err)
	}
}

func (b *spamBroker) keepsWhatAReaderGivesUp(t *testing.T) {
	collector := channel(t, b.login(t, "collector"))
	mails, err := channel(t, b.login(t, "reader")).Consume("spam.mails", "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	letters, err := channel(t, b.login(t, "admin")).Consume("spam.dead", "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		reason  string
		requeue bool
		looks   int
	}{
		{"rejected", false, 1},
		{"delivery_limit", true, 21},
	} {
		if err := publish(t.Context(), collector, "spam", "spam.mails", row.reason); err != nil {
			t.Fatal(err)
		}
		for range row.looks {
			d := next(t, mails)
			if err := d.Nack(false, row.requeue); err != nil {
				t.Fatal(err)
			}
		}
		d := next(t, letters)
		if string(d.Body) != row.reason || d.Headers["x-first-death-queue"] != "spam.mails" || d.Headers["x-first-death-reason"] != row.reason {
			t.Errorf("spam.dead has %q with %v, want it for the reason %s", d.Body, d.Headers, row.reason)
		}
	}
}

func next(t *testing.T, deliveries <-chan amqp091.Delivery) amqp091.Delivery {
	t.Helper()
	select {
	case d, ok := <-deliveries:
		if !ok {
			t.Fatal("the broker closed the channel")
		}
		return d
	case <-time.After(time.Minute):
		t.Fatal("nothing was delivered in a minute")
	}
	panic("unreachable")
}

// A full queue says no, and forgets nothing: the collector waits, and the mail stays where it is.
func (b *spamBroker) refusesWhatDoesNotFit(t *testing.T) {
	const size = 16 << 10
	ch := channel(t, b.login(t, "collector"))
	kept := 0
	for ; kept < 2*queueMaxBytes/size; kept++ {
		err := publish(t.Context(), ch, "spam", "spam.mails", strings.Repeat("m", size))
		if errors.Is(err, errNotTaken) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if kept < queueMaxBytes/size || kept == 2*queueMaxBytes/size {
		t.Errorf("spam.mails took %d mails of %d bytes", kept, size)
	}
	state, err := channel(t, b.login(t, "admin")).QueueDeclarePassive("spam.mails", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if state.Messages != kept {
		t.Errorf("spam.mails has %d mails of the %d that were confirmed", state.Messages, kept)
	}
	b.empty(t)
	rig.Eventually(t, time.Minute, "spam.mails takes mail again", func() bool {
		return publish(t.Context(), channel(t, b.login(t, "collector")), "spam", "spam.mails", "m") == nil
	})
	b.empty(t)
}

func (b *spamBroker) tellsNobodyAPassword(t *testing.T) {
	passwords := map[string]string{}
	for _, user := range brokerUsers {
		password := b.UserPassword(user)
		if !regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`).MatchString(password) {
			t.Errorf("the password of %s is not 43 random characters: %d bytes", user, len(password))
		}
		if other, taken := passwords[password]; taken {
			t.Errorf("%s and %s have one password", user, other)
		}
		passwords[password] = user
		if got := b.Exec("stat", "-c", "%a %u", "/secrets/"+user+"/password"); got != "400 65532" {
			t.Errorf("the password file of %s has mode and owner %s", user, got)
		}
	}
	// The server's own user reads the environment of the server's processes; BINDIR is in the Erlang machine's only.
	for place, text := range map[string]string{
		"BINDIR=":                        output(t, "exec", "-u", "rabbitmq", b.Name, "sh", "-c", "cat /proc/[0-9]*/environ || true"),
		"-kernel":                        output(t, "exec", b.Name, "sh", "-c", "cat /proc/[0-9]*/cmdline || true"),
		"user 'collector' authenticated": output(t, "logs", b.Name),
	} {
		if !strings.Contains(text, place) {
			t.Errorf("the search for passwords is void: there is no %s", place)
		}
		for password, user := range passwords {
			if strings.Contains(text, password) {
				t.Errorf("where %s stands, there is the password of %s", place, user)
			}
		}
	}
}

// output runs docker and returns what it writes, on standard error as well.
func output(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v: %s", args[0], err, out)
	}
	return string(out)
}

func (b *spamBroker) survivesAKillAndALostPassword(t *testing.T) {
	ch := channel(t, b.login(t, "collector"))
	want := []string{"one", "two", "three"}
	for _, body := range want {
		if err := publish(t.Context(), ch, "spam", "spam.mails", body); err != nil {
			t.Fatal(err)
		}
	}
	before := map[string]string{}
	for _, user := range brokerUsers {
		before[user] = b.UserPassword(user)
	}
	b.Exec("rm", "/secrets/bridge/password")
	b.Kill()
	b.Start()

	var got []string
	deliveries, err := channel(t, b.login(t, "reader")).Consume("spam.mails", "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range want {
		got = append(got, string(next(t, deliveries).Body))
	}
	if !slices.Equal(got, want) {
		t.Errorf("after the kill the queue has %q, want %q", got, want)
	}
	for _, user := range brokerUsers {
		renewed := b.UserPassword(user) != before[user]
		if renewed != (user == "bridge") {
			t.Errorf("the password of %s is new: %v", user, renewed)
		}
		b.login(t, user)
	}
	if _, err := b.dial(t, "bridge", before["bridge"]); !accessRefused(err) {
		t.Errorf("login with the old password: %v", err)
	}
}
