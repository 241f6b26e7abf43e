package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/rig"
	"spamtraps.internal/lmtp-collector/internal/maildir"
)

// window is how many mails may be in flight, so how many copies one fault may make.
const window = 256

// withMaildir returns the settings of a collector that has a maildir, and its path.
func withMaildir(t *testing.T, env []string, more ...string) ([]string, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "maildir")
	return append(append(env, "MAILDIR="+path, "MAILDIR_KEEP=undelivered"), more...), path
}

// waiting returns how many mails of a maildir the broker does not have yet.
func waiting(t *testing.T, path string) int {
	t.Helper()
	return count(t, filepath.Join(path, "pending"))
}

// mailFiles returns how many mails lie where a mail program looks for them.
func mailFiles(t *testing.T, path string) int {
	t.Helper()
	return count(t, filepath.Join(path, "new")) + count(t, filepath.Join(path, "cur"))
}

// count returns how many files lie in a folder and below. One that goes away meanwhile does not count.
func count(t *testing.T, folder string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(folder, func(_ string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case entry.Type().IsRegular():
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func awaitEmpty(t *testing.T, path string) {
	t.Helper()
	rig.Eventually(t, 2*time.Minute, "the maildir is empty", func() bool {
		return waiting(t, path) == 0 && mailFiles(t, path) == 0 && count(t, filepath.Join(path, "gone")) == 0
	})
}

// Whatever is killed, and whenever: a mail that was answered 250 arrives.
func testKilledAtRandomWithAMaildir(t *testing.T, broker *rig.Broker) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "lmtp")
	env, path := withMaildir(t, settings(broker.URL(), socket), "AMQP_HEARTBEAT=2s", "AMQP_CONFIRM_TIMEOUT=5s")
	collector := launch(t, env)
	load := startMTA(t, socket, 16)
	brokerDown := false
	for i := range campaign(6, 200) {
		if i%10 == 3 {
			load.faults++
			broker.Kill()
			brokerDown = true
		}
		load.await(t, rand.IntN(40))
		<-time.After(rand.N(5 * time.Millisecond)) // at any moment of a mail's way, not only right after a reply
		load.faults++
		collector.kill(t)
		collector = launch(t, env)
		if i%10 == 5 && brokerDown {
			broker.Start()
			brokerDown = false
		}
	}
	load.await(t, 50)
	load.stop()
	defer func() {
		if t.Failed() {
			t.Logf("the log of the last collector:\n%.20000s", collector.log)
			t.Logf("what lies in the maildir: %.20000s", listing(t, path))
		}
	}()
	awaitEmpty(t, path)
	load.compare(t, drain(t, broker))
}

// listing names all files below a folder.
func listing(t *testing.T, folder string) string {
	t.Helper()
	var names strings.Builder
	_ = filepath.WalkDir(folder, func(path string, _ fs.DirEntry, _ error) error { // what goes meanwhile does not count
		fmt.Fprintln(&names, path)
		return nil
	})
	return names.String()
}

// Mail that comes while the broker is away waits in the maildir, over a SIGKILL of the collector too, and goes on when the
// broker is back: oldest first, each once, null senders like all others, while new mail passes beside it.
func TestBrokerAwayForAllMail(t *testing.T) {
	broker := rig.SharedBroker(t)
	proxy := rig.NewProxy(t, fmt.Sprintf("%s:%d", broker.Host, broker.Port))
	proxy.Refuse()
	socket := filepath.Join(t.TempDir(), "lmtp")
	env, path := withMaildir(t, settings(broker.URLAt(proxy.Addr()), socket))
	collector := launch(t, env)
	load := startMTA(t, socket, 8)
	mails := campaign(500, 5000)
	load.await(t, mails/2)
	load.faults++ // a mail that was stored, and whose 250 was lost, is sent again and stored twice
	collector.kill(t)
	collector = launch(t, env)
	load.await(t, mails/2)
	load.stop()
	const null = 1_000_000_000
	deliverNull(t, socket, null)
	if status, text := collector.log.readiness(t); status != http.StatusOK || !strings.Contains(text, " waiting, oldest ") || !strings.Contains(text, "; mail goes to the maildir\n") {
		t.Errorf("while mail is spooled: %d %s", status, text)
	}
	if n := waiting(t, path); n < mails {
		t.Fatalf("%d mails wait, want %d", n, mails)
	}

	proxy.Accept()
	rig.Eventually(t, 5*time.Second, "the first mail is replayed", func() bool { return waiting(t, path) < mails })
	awaitEmpty(t, path)
	arrived := drain(t, broker)
	if last := arrived[len(arrived)-1]; last.LMTP.MailFrom != "" || !bytes.Equal(last.body, content(null)) {
		// Those at the end of the queue were on their way together.
		if !slices.ContainsFunc(arrived[len(arrived)-window/2:], func(m mail) bool { return m.LMTP.MailFrom == "" }) {
			t.Errorf("the youngest mail did not come last")
		}
	}
	var order []int
	for _, m := range arrived {
		var number int
		if _, err := fmt.Sscanf(m.LMTP.MailFrom, "mail-%d@", &number); err == nil {
			order = append(order, number)
		}
	}
	for i, number := range order {
		if number > i+2*window || number < i-2*window {
			t.Errorf("mail %d came as number %d", number, i)
			break
		}
	}
	load.compare(t, slices.DeleteFunc(arrived, func(m mail) bool { return m.LMTP.MailFrom == "" }))
	if n := count(t, path); n > 1 { // the lock
		t.Errorf("%d files are left in the maildir", n)
	}
}

func deliverNull(t *testing.T, socket string, number int) {
	t.Helper()
	c, err := hello(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	replies, err := c.Deliver("", []string{"b@y.example"}, content(number))
	if err != nil || !strings.HasPrefix(replies[0], "250 ") {
		t.Fatalf("a null sender's mail: %q, %v", replies, err)
	}
}

// New mail passes beside the old, and the old beside the new.
func TestNeitherOldNorNewMailStarves(t *testing.T) {
	broker := rig.SharedBroker(t)
	proxy := rig.NewProxy(t, fmt.Sprintf("%s:%d", broker.Host, broker.Port))
	proxy.Refuse()
	socket := filepath.Join(t.TempDir(), "lmtp")
	env, path := withMaildir(t, settings(broker.URLAt(proxy.Addr()), socket))
	collector := launch(t, env)
	load := startMTA(t, socket, 16)
	load.await(t, campaign(1000, 20_000))
	proxy.Accept()
	rig.Eventually(t, time.Minute, "old and new mail pass side by side", func() bool {
		return collector.log.metric(t, `spamtraps_lmtp_taken_total{held="confirmed"}`) > 20 && collector.log.metric(t, "spamtraps_spool_replayed_total") > 20 &&
			waiting(t, path) > 0
	})
	rig.Eventually(t, 2*time.Minute, "the old mail is through, under load", func() bool {
		load.await(t, 1)
		return waiting(t, path) == 0
	})
	load.faults++
	load.stop()
	awaitEmpty(t, path)
	load.compare(t, drain(t, broker))
}

// A mail that the broker takes never is set aside, whether it is new or was spooled, and the others pass.
func testMailThatNeverPassesIsSetAside(t *testing.T, broker *rig.Broker) {
	t.Helper()
	broker.Ctl("eval", "persistent_term:put(max_message_size, 100000).")
	proxy := rig.NewProxy(t, fmt.Sprintf("%s:%d", broker.Host, broker.Port))
	proxy.Refuse()
	socket := filepath.Join(t.TempDir(), "lmtp")
	env, path := withMaildir(t, settings(broker.URLAt(proxy.Addr()), socket), "AMQP_MAX_MESSAGE_BYTES=1MiB")
	collector := launch(t, env)
	c, err := hello(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	deliver := func(from string, size int) {
		t.Helper()
		body := append(bytes.Repeat([]byte("x"), size), "\r\n"...)
		replies, err := c.Deliver(from, []string{"b@y.example"}, body)
		if err != nil || !strings.HasPrefix(replies[0], "250 ") {
			t.Fatalf("%s: %q, %v", from, replies, err)
		}
	}
	deliver("small-1@x.example", 100)
	deliver("large-1@x.example", 200_000)
	deliver("small-2@x.example", 100)
	proxy.Accept()
	rig.Eventually(t, 20*time.Second, "what can pass has passed", func() bool { return waiting(t, path) == 0 })
	deliver("large-2@x.example", 200_000)
	deliver("small-3@x.example", 100)
	awaitEmpty(t, path)

	var from []string
	for _, m := range drain(t, broker) {
		from = append(from, m.LMTP.MailFrom)
	}
	slices.Sort(from)
	if want := []string{"small-1@x.example", "small-2@x.example", "small-3@x.example"}; !slices.Equal(slices.Compact(from), want) {
		t.Errorf("%q arrived, want %q", from, want)
	}
	if n := len(collector.log.events(t, "set_aside")) + len(collector.log.events(t, "set aside: this mail of the maildir cannot be published")); n != 2 {
		t.Errorf("the log tells of %d mails that were set aside", n)
	}
	if _, text := collector.log.readiness(t); !strings.Contains(text, "2 set aside") {
		t.Errorf("/readyz does not tell of the mails that were set aside: %s", text)
	}

	// Somebody has the broker take larger mails, and what was set aside tried again, while the collector runs.
	broker.Ctl("eval", "persistent_term:put(max_message_size, 16777216).")
	proxy.Reset() // the collector believes what it has learnt as long as it is connected
	if out := subcommand(t, env, daemon.ExitOK, "spool", "retry", "aside"); !strings.Contains(out, "2 mails wait for the broker again\n") {
		t.Errorf("spool retry says %q", out)
	}
	awaitEmpty(t, path)
	from = nil
	for _, m := range drain(t, broker) {
		if len(m.body) != 200_002 {
			t.Errorf("the mail of %s has %d bytes", m.LMTP.MailFrom, len(m.body))
		}
		from = append(from, m.LMTP.MailFrom)
	}
	slices.Sort(from)
	if want := []string{"large-1@x.example", "large-2@x.example"}; !slices.Equal(slices.Compact(from), want) {
		t.Errorf("%q arrived after the retry, want %q", from, want)
	}
	rig.Eventually(t, 20*time.Second, "/readyz knows that nothing is set aside any more", func() bool {
		_, text := collector.log.readiness(t)
		return strings.Contains(text, "spool: nothing waiting\n")
	})
	collector.log.balanced(t)
	collector.terminate(t)
	if code := collector.exit(); code != daemon.ExitOK {
		t.Errorf("exit code %d", code)
	}
}

// subcommand runs a subcommand to its end, and returns what it says on stdout and then on stderr.
func subcommand(t testing.TB, env []string, code int, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &stdout, &stderr
	_ = cmd.Run() // the exit code says it
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("%q: exit code %d, want %d: %s%s", args, got, code, &stdout, &stderr)
	}
	return stdout.String() + stderr.String()
}

// What waits is listed, shown and copied out, beside the collector and without the lock, and nothing in it reaches the terminal as more
// than text.
func TestSpoolCommand(t *testing.T) {
	process, env, path := spooler(t)
	c, err := hello(socketOf(env))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	bodies := map[string][]byte{
		"a@x.example":                   content(1),
		"\"\xc2\x9b31m\xff\"@x.example": []byte("a C1 control in the envelope\r\n\x00\xff\r\n"),
		"":                              {},
	}
	for from, body := range bodies {
		replies, err := c.Deliver(from, []string{"b@y.example", "c@y.example"}, body)
		if err != nil || !strings.HasPrefix(replies[0], "250 ") {
			t.Fatalf("%q, %v", replies, err)
		}
	}
	list := subcommand(t, env, daemon.ExitOK, "spool")
	names := regexp.MustCompile(`\d{10}\.M\S+,S=\d+`).FindAllString(list, -1)
	if len(names) != len(bodies) || strings.Contains(list, "\u009b") || strings.Count(list, "> b@y.example and 1 more\n") != len(bodies) {
		t.Errorf("spool lists %q", list)
	}
	if !strings.Contains(list, "\nwaiting: 3 mails, ") && !strings.HasPrefix(list, "waiting: 3 mails, ") {
		t.Errorf("spool does not sum up: %q", list)
	}
	folder := filepath.Join(t.TempDir(), "copy")
	subcommand(t, env, daemon.ExitOK, "spool", "export", folder)
	for _, name := range names {
		shown := subcommand(t, env, daemon.ExitOK, "spool", "show", name)
		if strings.Contains(shown, "\u009b") || !strings.Contains(shown, `"message_id": "lmtp-`) || !strings.Contains(shown, "the mail is there") {
			t.Errorf("spool show: %q", shown)
		}
		record, err := maildir.Decode(readFile(t, filepath.Join(folder, name+".json")))
		if err != nil {
			t.Fatal(err)
		}
		known, err := record.Envelope()
		if err != nil {
			t.Fatal(err)
		}
		want := bodies[known.LMTP.MailFrom]
		if got := readFile(t, filepath.Join(folder, name+".eml")); !bytes.Equal(got, want) {
			t.Errorf("the copy of the mail of %q is %q, want %q", known.LMTP.MailFrom, got, want)
		}
		if out := subcommand(t, env, daemon.ExitOK, "spool", "export", "-", name); out != string(want) {
			t.Errorf("on stdout the mail of %q is %q, want %q", known.LMTP.MailFrom, out, want)
		}
	}
	process.kill(t)

	for _, wrong := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"spool", "delete"}, daemon.ExitRefused, "can list, show, retry and export"},
		{[]string{"spool", "show"}, daemon.ExitRefused, "the name of one mail"},
		{[]string{"spool", "show", "nothing"}, daemon.ExitFailed, "there is no mail of that name: nothing in " + path},
		{[]string{"spool", "retry"}, daemon.ExitRefused, "those that wait are tried by themselves"},
		{[]string{"spool", "retry", names[0]}, daemon.ExitFailed, "it is waiting, not set aside"},
		{[]string{"spool", "export"}, daemon.ExitRefused, "takes a folder"},
		{[]string{"spool", "export", folder}, daemon.ExitFailed, "file exists"},
	} {
		if out := subcommand(t, env, wrong.code, wrong.args...); !strings.Contains(out, wrong.want) {
			t.Errorf("%q says %q, want %q", wrong.args, out, wrong.want)
		}
	}
	if waiting(t, path) != len(bodies) {
		t.Error("spool has taken mails away")
	}
	// A mail that somebody has changed is named, and copied nevertheless.
	if err := os.WriteFile(filepath.Join(path, "new", names[0]), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := subcommand(t, env, daemon.ExitFailed, "spool", "export", t.TempDir()); !strings.Contains(out, names[0]+": the mail is not the one that was stored") {
		t.Errorf("a changed mail: %q", out)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A mail whose confirm does not come before the end goes into the maildir, and is answered 250.
func TestTerminatedWithMailInFlightAndAMaildir(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	proxy := rig.NewProxy(t, fmt.Sprintf("%s:%d", broker.Host, broker.Port))
	socket := filepath.Join(t.TempDir(), "lmtp")
	env, path := withMaildir(t, settings(broker.URLAt(proxy.Addr()), socket), "SHUTDOWN_TIMEOUT=8s")
	collector := launch(t, env)
	collector.awaitConnected(t) // or the first mail would be replayed when the second comes
	c, err := hello(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if replies, err := c.Deliver(sender(0), []string{"b@y.example"}, content(0)); err != nil || !strings.HasPrefix(replies[0], "250 ") {
		t.Fatalf("%q, %v", replies, err)
	}
	proxy.Freeze()
	replied := make(chan string, 1)
	go func() {
		replies, err := c.Deliver(sender(1), []string{"b@y.example"}, content(1))
		replied <- fmt.Sprint(replies, err)
	}()
	rig.Eventually(t, 10*time.Second, "the mail is on its way", func() bool { return collector.log.metric(t, "spamtraps_lmtp_received_total") == 2 })
	collector.terminate(t)
	if reply := <-replied; !strings.Contains(reply, "[250 ") {
		t.Errorf("the mail in flight was answered %s", reply)
	}
	if code := collector.exit(); code != daemon.ExitOK {
		t.Errorf("exit code %d\n%s", code, collector.log)
	}
	if n := waiting(t, path); n != 1 {
		t.Errorf("%d mails wait, want 1", n)
	}
	proxy.Thaw()
	launch(t, env)
	awaitEmpty(t, path)
	seen := make(map[string]int)
	for _, m := range drain(t, broker) {
		seen[m.LMTP.MailFrom]++
	}
	if seen[sender(0)] != 1 || seen[sender(1)] < 1 || seen[sender(1)] > 2 {
		t.Errorf("%v arrived", seen)
	}
}

// A full disk means 452 at once, nothing half-written, and service as soon as there is room.
func TestFullDisk(t *testing.T) {
	t.Run("bytes", func(t *testing.T) { testFullDisk(t, "size=2m") })
	t.Run("inodes", func(t *testing.T) { testFullDisk(t, "size=64m,nr_inodes=60") })
}

func testFullDisk(t *testing.T, limit string) {
	t.Helper()
	broker := rig.SharedBroker(t)
	proxy := rig.NewProxy(t, fmt.Sprintf("%s:%d", broker.Host, broker.Port))
	proxy.Refuse()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, limit); err != nil {
		t.Fatalf("mount a small disk, which needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	socket := filepath.Join(t.TempDir(), "lmtp")
	path := filepath.Join(disk, "maildir")
	collector := launch(t, append(settings(broker.URLAt(proxy.Addr()), socket), "MAILDIR="+path, "MAILDIR_KEEP=undelivered", "MAILDIR_MIN_FREE=0"))
	c, err := hello(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	body := append(bytes.Repeat([]byte("x"), 100_000), "\r\n"...)
	accepted := 0
	var refusal string
	for refusal == "" && accepted < 100 {
		replies, err := c.Deliver(sender(accepted), []string{"b@y.example"}, body)
		switch {
		case err != nil:
			refusal = err.Error()
		case strings.HasPrefix(replies[0], "250 "):
			accepted++
		default:
			refusal = replies[0]
		}
	}
	if !strings.HasPrefix(refusal, "452 4.3.1 ") || accepted < 5 {
		t.Fatalf("after %d mails: %q", accepted, refusal)
	}
	if n := count(t, filepath.Join(path, "tmp")); n != 0 {
		t.Errorf("%d half-written files are left", n)
	}
	proxy.Accept()
	awaitEmpty(t, path)
	rig.Eventually(t, 20*time.Second, "mail is taken again", func() bool { return takesMail(socket) })
	if n := len(drain(t, broker)); n != accepted {
		t.Errorf("%d of %d mails arrived", n, accepted)
	}
	if _, text := collector.log.readiness(t); !strings.Contains(text, "OK spool: nothing waiting\n") {
		t.Errorf("/readyz after all that: %s", text)
	}
}
