package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/libs/rig"
)

// archiveOf makes a maildir of mails that nobody knows anything about, and returns its path.
func archiveOf(t testing.TB, mails int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "backup")
	for _, folder := range []string{"new", "cur", "tmp"} {
		if err := os.MkdirAll(filepath.Join(path, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for number := range mails {
		name := filepath.Join(path, "new", fmt.Sprintf("%d.M%dP1Q1.host", 1_700_000_000+number/10, number))
		if err := os.WriteFile(name, content(number), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// queueOf makes the topology of a broker, and returns the settings of one who replays.
func queueOf(t *testing.T, broker *rig.Broker) []string {
	t.Helper()
	env := settings(broker.URL(), filepath.Join(t.TempDir(), "none"))
	subcommand(t, env, daemon.ExitOK, "replay", archiveOf(t, 1))
	drain(t, broker)
	return env
}

// What an older maildir of ours holds comes again with its envelope and its id, and says that it was replayed; what a stranger put beside it
// comes without one.
func TestReplayOfOurMaildir(t *testing.T) {
	broker := rig.SharedBroker(t)
	socket := filepath.Join(t.TempDir(), "lmtp")
	env, path := withMaildir(t, settings(broker.URL(), socket), "MAILDIR_KEEP=all")
	collector := launch(t, env)
	collector.awaitConnected(t)
	c, err := hello(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for number := range 5 {
		if replies, err := c.Deliver(sender(number), []string{fmt.Sprintf("b@y%d.example", number%2)}, content(number)); err != nil || !strings.HasPrefix(replies[0], "250 ") {
			t.Fatalf("%q, %v", replies, err)
		}
	}
	rig.Eventually(t, 20*time.Second, "the copies are there", func() bool { return mailFiles(t, path) == 5 })
	first := make(map[string]mail)
	for _, m := range drain(t, broker) {
		first[m.MessageID] = m
	}
	if err := os.WriteFile(filepath.Join(path, "cur", "1700000000.stranger:2,S"), []byte("Subject: s\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	list := subcommand(t, env, daemon.ExitOK, "replay", "-n", path)
	if strings.Count(list, path) != 6 || !strings.Contains(list, "6 mails would be replayed (") {
		t.Errorf("the dry run says %q", list)
	}
	if n := len(drain(t, broker)); n != 0 {
		t.Errorf("the dry run published %d mails", n)
	}
	if out := subcommand(t, env, daemon.ExitOK, "replay", path); !strings.Contains(out, "6 mails replayed (") {
		t.Errorf("replay says %q", out)
	}
	strangers := 0
	for _, m := range drain(t, broker) {
		before, known := first[m.MessageID]
		if !m.Replayed {
			t.Errorf("%s is not marked", m.MessageID)
		}
		if !known {
			strangers++
			if string(m.body) != "Subject: s\n\n" || m.LMTP != nil || m.Sensor != "sensor-1" || m.ContentHash != envelope.ContentHash(m.body) || !m.ReceivedAt.Equal(time.Unix(1_700_000_000, 0)) {
				t.Errorf("the stranger's mail: %+v", m.Envelope)
			}
			continue
		}
		delete(first, m.MessageID)
		want := *before.Envelope
		want.Replayed = true
		if got, wanted := asJSON(t, m.Envelope), asJSON(t, &want); got != wanted || !bytes.Equal(m.body, before.body) {
			t.Errorf("came as\n%s\nwant\n%s", got, wanted)
		}
	}
	if len(first) > 0 || strangers != 1 {
		t.Errorf("%d mails did not come again, %d strangers", len(first), strangers)
	}
	subcommand(t, env, daemon.ExitOK, "replay", "--rcpt-domain", "Y1.example", path)
	if n := len(drain(t, broker)); n != 2 {
		t.Errorf("%d mails to one domain came, want 2", n)
	}
}

func asJSON(t testing.TB, e *envelope.Envelope) string {
	t.Helper()
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestReplayFilters(t *testing.T) {
	broker := rig.SharedBroker(t)
	env := queueOf(t, broker)
	path := archiveOf(t, 100) // ten in each second
	sum := sha256.Sum256(content(7))
	digest := hex.EncodeToString(sum[:])
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"--since", "2023-11-14T22:13:22Z"}, 80},
		{[]string{"--until", "2023-11-14T22:13:22Z"}, 20},
		{[]string{"--since", "2023-11-14T22:13:22Z", "--until", "2023-11-14 22:13:23"}, 10},
		{[]string{"--since", "24h"}, 0},
		{[]string{"--sha256", strings.ToUpper(digest[:10])}, 1},
		{[]string{"--sha256", digest, "--since", "1d"}, 0},
		{[]string{"--rcpt-domain", "nobody.example"}, 0},
	} {
		out := subcommand(t, env, daemon.ExitOK, append([]string{"replay", path}, c.args...)...)
		if n := len(drain(t, broker)); n != c.want || !strings.Contains(out, fmt.Sprintf("%d mails replayed (", c.want)) || !strings.Contains(out, fmt.Sprintf("%d did not match", 100-c.want)) {
			t.Errorf("%q: %d mails came, want %d: %s", c.args, n, c.want, out)
		}
	}
	for _, c := range []struct{ args, want string }{
		{"--since yesterday", "--since takes a time such as"},
		{"--sha256 xyz", "--sha256 takes 6 to 64 hex digits"},
		{"--state", "flag needs an argument"},
	} {
		if out := subcommand(t, env, daemon.ExitRefused, append([]string{"replay", path}, strings.Fields(c.args)...)...); !strings.Contains(out, c.want) {
			t.Errorf("%q says %q", c.args, out)
		}
	}
	if out := subcommand(t, env, daemon.ExitRefused, "replay"); !strings.Contains(out, "replay takes the paths") {
		t.Errorf("without a path: %q", out)
	}
}

// One analyst gets what was asked for, and nobody else does.
func TestReplayToOneQueue(t *testing.T) {
	broker := rig.SharedBroker(t)
	env := queueOf(t, broker)
	conn, err := amqp091.Dial(broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	channel, err := conn.Channel()
	if err == nil {
		_, err = channel.QueueDeclare("analyst", true, false, false, false, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	subcommand(t, env, daemon.ExitOK, "replay", "--queue", "analyst", archiveOf(t, 20))
	queue, err := channel.QueueDeclarePassive("analyst", true, false, false, false, nil)
	if err != nil || queue.Messages != 20 {
		t.Errorf("the analyst's queue has %d mails: %v", queue.Messages, err)
	}
	if n := len(drain(t, broker)); n != 0 {
		t.Errorf("the others got %d mails", n)
	}
}

// What is bad is named and passed over, and the exit code says so. Stdin can be a mail or an mbox.
func TestReplayNamesWhatIsBad(t *testing.T) {
	broker := rig.SharedBroker(t)
	env := append(queueOf(t, broker), "AMQP_MAX_MESSAGE_BYTES=20000")
	folder := t.TempDir()
	for name, text := range map[string]string{
		"good.eml": "Subject: good\r\n\r\n", "empty.eml": "", "large.eml": strings.Repeat("x", 20_001), "no.mbox": "Subject: no mbox\n\n",
		"changed.eml": "changed", "changed.json": `{"version": 1, "message_id": "lmtp-1", "headers": {"contract": 1, "sha256": "00"}}`,
		"newer.eml": "newer", "newer.json": `{"version": 99}`, "broken.eml": "broken", "broken.json": `{`,
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := subcommand(t, env, daemon.ExitFailed, "replay", folder)
	if !strings.Contains(out, "1 mails replayed (") || !strings.Contains(out, ", 6 bad\n") {
		t.Errorf("it says %s", out)
	}
	for name, why := range map[string]string{
		"empty.eml": "it is empty", "large.eml": "too large", "no.mbox": "it is no mbox", "changed.eml": "somebody changed it", "newer.eml": "a newer version",
		"broken.eml": "cannot be read",
	} {
		if !slices.ContainsFunc(strings.Split(out, "\n"), func(line string) bool {
			return strings.HasPrefix(line, "bad: "+filepath.Join(folder, name)+": ") && strings.Contains(line, why)
		}) {
			t.Errorf("%s is not named: %s", name, out)
		}
	}
	if mails := drain(t, broker); len(mails) != 1 || string(mails[0].body) != "Subject: good\r\n\r\n" {
		t.Errorf("%d mails came", len(mails))
	}
	for _, text := range []string{"Subject: one\r\n\r\n", "From x Tue Nov 24 08:00:00 2026\nSubject: a\n\nFrom x Tue Nov 24 08:00:00 2026\nSubject: b\n\n"} {
		cmd := exec.CommandContext(t.Context(), program, "replay", "-")
		cmd.Env, cmd.Stdin = env, strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	if n := len(drain(t, broker)); n != 3 {
		t.Errorf("%d mails came from stdin, want 3", n)
	}
}

// A replay that is killed goes on where it was, and repeats no more than was in flight; one that is complete does nothing.
func TestReplayIsKilledAndGoesOn(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	proxy := rig.NewProxy(t, fmt.Sprintf("%s:%d", broker.Host, broker.Port))
	const inFlight = 20
	mails := campaign(2000, 20_000)
	env := append(queueOf(t, broker), "AMQP_URL="+broker.URLAt(proxy.Addr()), fmt.Sprintf("AMQP_IN_FLIGHT=%d", inFlight))
	path, state := archiveOf(t, mails), filepath.Join(t.TempDir(), "state")
	kills := 0
	for ; kills < campaign(4, 20); kills++ {
		cmd := exec.CommandContext(t.Context(), program, "replay", "--state", state, path)
		cmd.Env = env
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		rig.Eventually(t, time.Minute, "it is some way on", func() bool {
			data, _ := os.ReadFile(state) // which may not be there yet
			return behind(data) >= (kills+1)*mails/50
		})
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // "signal: killed"
	}
	before := behind(readFile(t, state))
	// That there is no broker is no reason to end.
	proxy.Refuse()
	cmd := exec.CommandContext(t.Context(), program, "replay", "--state", state, path)
	cmd.Env = env
	var out console
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, 20*time.Second, "it finds no broker", func() bool { return strings.Contains(out.String(), "connection refused") })
	proxy.Accept()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	if want := fmt.Sprintf("%d mails replayed (", mails-before); !strings.Contains(out.String(), want) {
		t.Errorf("the last run says %s, want %s", &out, want)
	}
	copies := make(map[string]int)
	for _, m := range drain(t, broker) {
		copies[m.MessageID]++
	}
	extra := 0
	for _, n := range copies {
		extra += n - 1
	}
	t.Logf("%d mails, %d kills: %d repeated", mails, kills, extra)
	if len(copies) != mails || extra > (kills+1)*inFlight {
		t.Errorf("%d of %d mails came, %d of them again", len(copies), mails, extra)
	}
	if out := subcommand(t, env, daemon.ExitOK, "replay", "--state", state, path); !strings.Contains(out, fmt.Sprintf("all is replayed already, %d mails", mails)) {
		t.Errorf("when all is done it says %q", out)
	}
	if out := subcommand(t, env, daemon.ExitFailed, "replay", "--state", state, "--since", "1d", path); !strings.Contains(out, "is of a replay with other paths") {
		t.Errorf("another job with the same state file: %q", out)
	}
}

// behind returns how many mails a state file says are behind.
func behind(data []byte) int {
	var state struct {
		Replayed int `json:"replayed"`
	}
	_ = json.Unmarshal(data, &state) // it may not be there yet
	return state.Replayed
}
