package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"spamtraps.internal/libs/rig"
	"spamtraps.internal/lmtp-collector/internal/lmtptest"
)

// Whatever bytes a mail has, these come out.
func TestHostileBodies(t *testing.T) {
	broker := rig.SharedBroker(t)
	collector := boot(t, broker.URL())
	c, err := hello(collector.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const count = 1000
	bodies := make(map[string][]byte, count)
	for number := range count {
		body := rig.HostileBody(random)
		bodies[sender(number)] = body
		replies, err := c.Deliver(sender(number), []string{"b@y.example"}, body)
		if err != nil || !strings.HasPrefix(replies[0], "250 ") {
			t.Fatalf("mail %d: %q, %v: %.2000q", number, replies, err, body)
		}
	}
	mails := drain(t, broker)
	for _, m := range mails {
		if !bytes.Equal(m.body, bodies[m.LMTP.MailFrom]) {
			t.Errorf("%s came as %.1000q, want %.1000q", m.LMTP.MailFrom, m.body, bodies[m.LMTP.MailFrom])
		}
		delete(bodies, m.LMTP.MailFrom)
	}
	if len(bodies) > 0 || len(mails) != count {
		t.Errorf("%d mails came, %d did not", len(mails), len(bodies))
	}
}

// An envelope of bytes that are no text comes out as it was, in base64.
func TestHostileEnvelope(t *testing.T) {
	broker := rig.SharedBroker(t)
	collector := boot(t, broker.URL())
	c, err := hello(collector.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	from, to := "\xff\xfe\x80@\xc0\xaf.example", []string{"b\xe4@y.example", "\x01\x02@y.example", "büro@müller.example"}
	replies, err := c.Deliver(from, to, []byte("x\r\n"))
	if err != nil || len(replies) != 3 || !strings.HasPrefix(replies[0], "250 ") {
		t.Fatalf("%q, %v", replies, err)
	}
	mails := drain(t, broker)
	if len(mails) != 1 || mails[0].LMTP.MailFrom != from || !slices.Equal(mails[0].LMTP.RcptTo, to) {
		t.Errorf("came as %+v", mails[0].LMTP)
	}
}

// Every large mail gets through, one after the other where there is no room for all at once, and the memory stays within its limit.
func testManyLargeMails(t *testing.T, broker *rig.Broker) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "lmtp")
	sessions := campaign(30, 200)
	const size, limit = 10 << 20, 128 << 20
	collector := launch(t, append(settings(broker.URL(), socket), "LMTP_MEMORY=128MiB", fmt.Sprintf("LMTP_MAX_CONNECTIONS=%d", sessions+8)))
	collector.awaitConnected(t)
	body := append(bytes.Repeat([]byte(strings.Repeat("x", 78)+"\r\n"), size/80-1), strings.Repeat("y", 78)+"\r\n"...)
	var all sync.WaitGroup
	var deferred sync.Map
	for number := range sessions {
		all.Go(func() {
			for {
				c, err := hello(socket)
				if err != nil {
					t.Error(err)
					return
				}
				replies, err := c.Deliver(sender(number), []string{"b@y.example"}, body)
				_ = c.Close()
				switch {
				case err == nil && strings.HasPrefix(replies[0], "250 "):
					return
				case err != nil && !strings.HasPrefix(err.Error(), "452 4.3.1 "):
					t.Errorf("mail %d: %v", number, err)
					return
				}
				deferred.Store(number, true) // told to come again, as an MTA does
			}
		})
	}
	// A small mail beside them is not kept waiting for memory.
	if c, err := hello(socket); err != nil {
		t.Error(err)
	} else {
		for range 20 {
			if replies, err := c.Deliver("small@x.example", []string{"b@y.example"}, []byte("x\r\n")); err != nil || !strings.HasPrefix(replies[0], "250 ") {
				t.Errorf("a small mail is answered %q, %v", replies, err)
			}
		}
		_ = c.Close()
	}
	all.Wait()
	again := 0
	deferred.Range(func(any, any) bool { again++; return true })
	rss := collector.peakRSS(t)
	t.Logf("%d mails of 10 MiB at once: peak RSS %d MiB, %d of them told to come again", sessions, rss>>20, again)
	if rss > limit+64<<20 {
		t.Errorf("peak RSS is %d MiB, with LMTP_MEMORY=128MiB", rss>>20)
	}
	seen := make(map[string]bool)
	for _, m := range drain(t, broker) {
		if m.LMTP.MailFrom != "small@x.example" && !bytes.Equal(m.body, body) {
			t.Errorf("%s has %d other bytes", m.LMTP.MailFrom, len(m.body))
		}
		seen[m.LMTP.MailFrom] = true
	}
	if len(seen) != sessions+1 {
		t.Errorf("mail of %d senders came, want %d", len(seen), sessions+1)
	}
}

// Peers that are silent, or stop in the middle of a mail, or send a byte a second keep nobody else from being served, are ended, and
// nothing of theirs is taken for a mail.
func TestIdleHalfSentAndDrippingSessions(t *testing.T) {
	t.Parallel() // it mostly waits for timeouts
	broker := rig.SharedBroker(t)
	socket := filepath.Join(t.TempDir(), "lmtp")
	// With the default of 200 connections: who comes when all are taken gets the place of one who has been silent for long.
	collector := launch(t, append(settings(broker.URL(), socket), "LMTP_IDLE_TIMEOUT=10s"))
	collector.awaitConnected(t)
	idle := collector.peakRSS(t)
	var clients []*lmtptest.Client
	defer func() {
		for _, c := range clients {
			_ = c.Close()
		}
	}()
	connect := func(say ...string) *lmtptest.Client {
		t.Helper()
		var c *lmtptest.Client
		rig.Eventually(t, 30*time.Second, "a connection is taken", func() (ok bool) {
			var err error
			c, err = hello(socket)
			return err == nil
		})
		for _, line := range say {
			if _, err := c.Ask(line); err != nil {
				t.Fatal(err)
			}
		}
		clients = append(clients, c)
		return c
	}
	good := connect()
	var dripping []*lmtptest.Client
	for number := range 300 {
		switch number % 3 {
		case 0:
			connect()
		case 1:
			half := connect("MAIL FROM:<half@x.example>", "RCPT TO:<b@y.example>", "DATA")
			if err := half.Send("Subject: half\r\n\r\nhalf a mail\r\n."); err != nil {
				t.Fatal(err)
			}
		case 2:
			dripping = append(dripping, connect("MAIL FROM:<drip@x.example>", "RCPT TO:<b@y.example>", "DATA"))
		}
		if number%10 == 0 {
			if replies, err := good.Deliver(sender(number/10), []string{"b@y.example"}, content(number/10)); err != nil || !strings.HasPrefix(replies[0], "250 ") {
				t.Fatalf("the good one is answered %q, %v", replies, err)
			}
		}
	}
	second := time.NewTicker(time.Second)
	defer second.Stop()
	open := len(dripping)
	for range 30 {
		for i, c := range dripping {
			if c != nil && c.Send("x") != nil {
				dripping[i], open = nil, open-1
			}
		}
		if open == 0 {
			break
		}
		<-second.C
	}
	if open > 0 {
		t.Errorf("%d peers that send a byte a second are still served", open)
	}
	rig.Eventually(t, 30*time.Second, "the others are ended too", func() bool { return collector.log.metric(t, "spamtraps_lmtp_connections") <= 1 })
	if rss := collector.peakRSS(t); rss > idle+64<<20 {
		t.Errorf("300 such sessions took %d MiB", (rss-idle)>>20)
	}
	mails := drain(t, broker)
	if len(mails) != 30 {
		t.Errorf("%d mails came, want the 30 of the good one", len(mails))
	}
	for _, m := range mails {
		if !strings.HasPrefix(m.LMTP.MailFrom, "mail-") {
			t.Errorf("a mail of %s came", m.LMTP.MailFrom)
		}
	}
}

// A list of 5,000 recipients: what a transaction does not take is refused for now, and comes in the next; nobody is left out.
func TestFiveThousandRecipients(t *testing.T) {
	broker := rig.SharedBroker(t)
	collector := boot(t, broker.URL())
	c, err := hello(collector.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	var left []string
	for i := range 5000 {
		left = append(left, fmt.Sprintf("recipient-%04d@a-domain-of-some-length.example", i))
	}
	want := slices.Clone(left)
	transactions := 0
	for ; len(left) > 0; transactions++ {
		var commands strings.Builder // all at once, as PIPELINING allows
		commands.WriteString("MAIL FROM:<a@x.example>\r\n")
		for _, to := range left {
			fmt.Fprintf(&commands, "RCPT TO:<%s>\r\n", to)
		}
		sent := make(chan error, 1)
		go func() { sent <- c.Send(commands.String()) }()
		expect(t, c, "250 ")
		var taken, next []string
		for _, to := range left {
			reply, err := c.Reply()
			switch {
			case err != nil:
				t.Fatal(err)
			case strings.HasPrefix(reply, "250 "):
				taken = append(taken, to)
			case strings.HasPrefix(reply, "452 4.5.3 "):
				next = append(next, to)
			default:
				t.Fatalf("RCPT is answered %q", reply)
			}
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if err := c.Send("DATA\r\n"); err != nil {
			t.Fatal(err)
		}
		expect(t, c, "354 ")
		if err := c.Send(lmtptest.Stuff(content(1))); err != nil {
			t.Fatal(err)
		}
		for range taken {
			expect(t, c, "250 ")
		}
		left = next
	}
	var got []string
	ids, mailIDs := make(map[string]bool), make(map[string]bool)
	for _, m := range drain(t, broker) {
		got = append(got, m.LMTP.RcptTo...)
		ids[m.MessageID], mailIDs[m.MailID] = true, true
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%d recipients came out, want %d", len(got), len(want))
	}
	if len(ids) != transactions || len(mailIDs) != 1 {
		t.Errorf("%d transactions have %d message ids and %d mail ids", transactions, len(ids), len(mailIDs))
	}
	t.Logf("%d transactions", transactions)
}

func expect(t *testing.T, c *lmtptest.Client, want string) {
	t.Helper()
	if reply, err := c.Reply(); err != nil || !strings.HasPrefix(reply, want) {
		t.Fatalf("the reply is %q, %v, want %s", reply, err, want)
	}
}

// A sender who waits for no reply at all, not even for 354, gets every mail through, exactly, and every reply in order.
func TestSenderWhoPipelinesEverything(t *testing.T) {
	broker := rig.SharedBroker(t)
	collector := boot(t, broker.URL())
	c, err := hello(collector.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	random := rand.New(rand.NewPCG(1, 2))
	const count = 200
	var all strings.Builder
	bodies := make(map[string][]byte)
	for number := range count {
		bodies[sender(number)] = rig.HostileBody(random)
		fmt.Fprintf(&all, "MAIL FROM:<%s>\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<c@y.example>\r\nDATA\r\n%s", sender(number), lmtptest.Stuff(bodies[sender(number)]))
	}
	all.WriteString("QUIT\r\n")
	sent := make(chan error, 1)
	go func() { sent <- c.Send(all.String()) }()
	for range count {
		for _, want := range []string{"250 ", "250 ", "250 ", "354 ", "250 2.0.0 <b@y.example>", "250 2.0.0 <c@y.example>"} {
			expect(t, c, want)
		}
	}
	expect(t, c, "221 ")
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	mails := drain(t, broker)
	for _, m := range mails {
		if !bytes.Equal(m.body, bodies[m.LMTP.MailFrom]) {
			t.Errorf("%s came as %.1000q, want %.1000q", m.LMTP.MailFrom, m.body, bodies[m.LMTP.MailFrom])
		}
	}
	if len(mails) != count {
		t.Errorf("%d mails came", len(mails))
	}
}
