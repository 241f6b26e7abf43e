package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/rig"
)

// campaign returns how often something random is tried: a few times, or often when CAMPAIGN=full.
func campaign(few, often int) int {
	if os.Getenv("CAMPAIGN") == "full" {
		return often
	}
	return few
}

func TestTerminatedWithMailInFlight(t *testing.T) {
	broker := rig.SharedBroker(t)
	socket := filepath.Join(t.TempDir(), "lmtp")
	env := settings(broker.URL(), socket)
	first := launch(t, env)
	load := startMTA(t, socket, 8)
	load.await(t, 50)

	sending, err := hello(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sending.Close() }()
	idle, err := hello(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.Close() }()
	for _, step := range [][2]string{{"MAIL FROM:<" + sender(1_000_000) + ">", "250 "}, {"RCPT TO:<b@y.example>", "250 "}, {"DATA", "354 "}} {
		if reply, err := sending.Ask(step[0]); err != nil || !strings.HasPrefix(reply, step[1]) {
			t.Fatalf("%s: %q, %v", step[0], reply, err)
		}
	}
	body := string(content(1_000_000))
	_ = sending.Send(body[:100])

	first.terminate(t)
	if reply, err := idle.Reply(); err != nil || !strings.HasPrefix(reply, "421 ") {
		t.Errorf("an idle session: %q, %v", reply, err)
	}
	_ = sending.Send(body[100:] + ".\r\n")
	if reply, err := sending.Reply(); err != nil || !strings.HasPrefix(reply, "250 ") {
		t.Errorf("a mail that was being sent: %q, %v", reply, err)
	}
	if code := first.exit(); code != daemon.ExitOK {
		t.Errorf("exit code %d\n%s", code, first.log)
	}
	load.mu.Lock()
	load.accepted[1_000_000], load.tries[1_000_000] = true, 1
	load.mu.Unlock()

	launch(t, env)
	load.await(t, 50)
	load.finish(t, broker)
}

func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	socket := filepath.Join(t.TempDir(), "lmtp")
	env := settings(broker.URL(), socket)
	collector := launch(t, env)
	load := startMTA(t, socket, 16)
	for range campaign(5, 200) {
		load.await(t, rand.IntN(40))
		<-time.After(rand.N(5 * time.Millisecond)) // at any moment of a mail's way, not only right after a reply
		collector.kill(t)
		collector = launch(t, env) // over the socket that the killed one left behind
	}
	load.await(t, 50)
	load.finish(t, broker)
}

// One broker for all that hurt it: its start takes longer than most of them.
func TestBrokerOfTheirOwn(t *testing.T) {
	t.Parallel() // it mostly waits for the broker
	broker := rig.OwnBroker(t)
	for _, part := range []struct {
		name string
		test func(*testing.T, *rig.Broker)
	}{
		{"many large mails", testManyLargeMails},
		{"mail that never passes is set aside", testMailThatNeverPassesIsSetAside},
		{"collector and broker are killed at random, with a maildir", testKilledAtRandomWithAMaildir},
		{"the broker has bad days", testBrokerHasBadDays},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, broker) })
	}
}

// Two collectors, one of them with a maildir, see the same bad days. The one without defers mail at once and takes it again as soon as
// the broker is back; the one with takes all of it, and what waited passes then. Of either nothing is missing in the end.
func testBrokerHasBadDays(t *testing.T, broker *rig.Broker) {
	t.Helper()
	second := *broker
	second.VHost = "second"
	second.MakeVHost(second.VHost)
	socket, spooling := filepath.Join(t.TempDir(), "lmtp"), filepath.Join(t.TempDir(), "lmtp")
	more := []string{"AMQP_HEARTBEAT=2s", "AMQP_CONFIRM_TIMEOUT=5s"}
	collector := launch(t, append(settings(broker.URL(), socket), more...))
	env, path := withMaildir(t, settings(second.URL(), spooling), more...)
	spooler := launch(t, env)
	spooler.awaitConnected(t)
	broker.Settle() // the second one's queue
	load, spooled := startMTA(t, socket, 8), startMTA(t, spooling, 8)
	replayed := func() float64 { return spooler.log.metric(t, "spamtraps_spool_replayed_total") }
	days := []struct {
		name        string
		often       int // how many times in a short run, and in a campaign
		away, again func()
	}{
		{"killed", campaign(1, 20), broker.Kill, broker.Start},
		{"stopped", campaign(0, 2), broker.Stop, broker.Start},
		{"paused", campaign(1, 3), broker.Pause, broker.Unpause},
		{"out of memory", campaign(1, 2), func() { broker.MemoryAlarm(true) }, func() { broker.MemoryAlarm(false) }},
		{"out of disk", campaign(0, 2), func() { broker.DiskAlarm(true) }, func() { broker.DiskAlarm(false) }},
		{"its application stopped", campaign(0, 2), broker.StopApp, broker.StartApp},
	}
	for _, day := range days {
		for range day.often {
			spooled.faults++
			load.await(t, 100)
			spooled.await(t, 100)
			day.away()
			rig.Eventually(t, 20*time.Second, day.name+": MAIL is deferred", func() bool { return deferred(t, socket) })
			began := time.Now()
			if !deferred(t, socket) || time.Since(began) > time.Second {
				t.Errorf("%s: MAIL is not deferred at once, but after %s", day.name, time.Since(began))
			}
			rig.Eventually(t, 30*time.Second, day.name+": mail is spooled", func() bool { return waiting(t, path) > 0 })
			spooled.await(t, 200)
			before := replayed()
			day.again()
			back := time.Now()
			took := load.await(t, 1)
			rig.Eventually(t, 20*time.Second, day.name+": mail of the maildir passes", func() bool { return replayed() > before })
			t.Logf("%s: 250 again %s after the broker's return, replayed %s after it", day.name, took.Round(time.Millisecond), time.Since(back).Round(time.Millisecond))
			if took > 5*time.Second {
				t.Errorf("%s: 250 came %s after the broker's return", day.name, took)
			}
			rig.Eventually(t, time.Minute, day.name+": the maildir is empty", func() bool { return waiting(t, path) == 0 })
		}
	}
	load.await(t, 100)
	spooled.await(t, 100)
	load.finish(t, broker)
	spooled.stop()
	awaitEmpty(t, path)
	spooled.compare(t, drain(t, &second))
	spooler.log.balanced(t)
	for _, p := range []*process{collector, spooler} {
		if peak := p.peakRSS(t); peak > 64<<20 {
			t.Errorf("a collector grew to %d MiB", peak>>20)
		}
		p.terminate(t)
		if code := p.exit(); code != daemon.ExitOK {
			t.Errorf("exit code %d", code)
		}
		if t.Failed() {
			t.Logf("the log:\n%.20000s", p.log)
		}
	}
}

// deferred tells whether MAIL is answered 451.
func deferred(t *testing.T, socket string) bool {
	t.Helper()
	c, err := hello(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	reply, err := c.Ask("MAIL FROM:<>")
	if err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(reply, "451 ")
}
