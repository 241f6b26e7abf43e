package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"spamtraps.internal/libs/rig"
)

// nowhere is a broker that refuses every connection, so that all mail goes into the maildir.
const nowhere = "amqp://guest:guest@127.0.0.1:1"

// tracer is an strace that watches a collector, or does something to its system calls.
type tracer struct {
	cmd  *exec.Cmd
	said *console
	file string
}

// trace attaches strace with these arguments, and returns when it is there.
func trace(t *testing.T, p *process, args ...string) *tracer {
	t.Helper()
	tr := &tracer{said: new(console), file: filepath.Join(t.TempDir(), "trace")}
	args = append([]string{"-f", "-y", "-s", "32", "-o", tr.file, "-p", fmt.Sprint(p.cmd.Process.Pid)}, args...)
	tr.cmd = exec.CommandContext(t.Context(), "strace", args...)
	tr.cmd.Stderr = tr.said
	if err := tr.cmd.Start(); err != nil {
		t.Fatalf("start strace, which `make deps` installs: %v", err)
	}
	t.Cleanup(func() { _ = tr.cmd.Process.Kill() })
	rig.Eventually(t, 10*time.Second, "strace watches", func() bool { return strings.Contains(tr.said.String(), " attached") })
	return tr
}

// detach ends it, and leaves the collector alone from then on.
func (tr *tracer) detach(t *testing.T) {
	t.Helper()
	if err := tr.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = tr.cmd.Wait() // it was interrupted
}

// call is a system call in a trace: its text, and the lines at which it began and ended.
type call struct {
	text       string
	began, end int
}

// calls reads the trace. Calls of several threads are interleaved in it.
func (tr *tracer) calls(t *testing.T) []call {
	t.Helper()
	data, err := os.ReadFile(tr.file)
	if err != nil {
		t.Fatal(err)
	}
	var calls []call
	unfinished := make(map[string]call)
	lines := bufio.NewScanner(bytes.NewReader(data))
	for number := 0; lines.Scan(); number++ {
		thread, text, _ := strings.Cut(lines.Text(), " ")
		text = strings.TrimSpace(text)
		if begin, ok := strings.CutSuffix(text, " <unfinished ...>"); ok {
			unfinished[thread] = call{text: begin, began: number}
			continue
		}
		c := call{text: text, began: number, end: number}
		if _, rest, ok := strings.Cut(text, " resumed>"); ok && strings.HasPrefix(text, "<... ") {
			c = unfinished[thread]
			c.text, c.end = c.text+rest, number
		}
		calls = append(calls, c)
	}
	return calls
}

// spooler returns a collector that has no broker, its maildir, and a session with it.
func spooler(t *testing.T) (*process, []string, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "lmtp")
	env, path := withMaildir(t, settings(nowhere, socket), "MAILDIR_MIN_FREE=0")
	return launch(t, env), env, path
}

// offer hands over one mail and returns the last reply, whatever it is; "" when the connection broke.
func offer(t *testing.T, env []string, number int) string {
	t.Helper()
	c, err := hello(socketOf(env))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	replies, err := c.Deliver(sender(number), []string{"b@y.example"}, content(number))
	switch {
	case err == nil:
		return replies[0]
	case strings.Contains(err.Error(), " "):
		return err.Error()
	}
	return ""
}

func socketOf(env []string) string {
	for _, setting := range env {
		if path, ok := strings.CutPrefix(setting, "LMTP_LISTEN=unix:"); ok {
			return path
		}
	}
	return ""
}

// What a 250 promises is on the disk before it is said: the mail's bytes, its envelope's and the envelope's name, fsynced before the mail
// gets its own name, which is fsynced before the reply.
func TestOrderOnTheDisk(t *testing.T) {
	collector, env, path := spooler(t)
	tracer := trace(t, collector, "-e", "trace=openat,write,fsync,fdatasync,renameat,renameat2,rename,mkdirat,sendto")
	for number := range 3 {
		if reply := offer(t, env, number); !strings.HasPrefix(reply, "250 ") {
			t.Fatalf("got %q", reply)
		}
	}
	tracer.detach(t)
	calls := tracer.calls(t)
	p := regexp.QuoteMeta(path)
	const name = `[0-9]+\.M[0-9]+P[0-9]+R[0-9a-f]+\.[^,"> ]+,S=[0-9]+`
	const done = `\)\s+= 0$`
	draft, envelope := p+`/tmp/`+name, p+`/pending/[^/>]+/`+name+`\.json`
	steps := map[string]struct {
		pattern string
		after   []string // steps that must have ended when this one begins
	}{
		"the mail is made":     {`^openat\(.*"` + draft + `", [^)]*O_CREAT`, nil},
		"the mail is written":  {`^write\(\d+<` + draft + `>`, []string{"the mail is made"}},
		"the mail is fsynced":  {`^fsync\(\d+<` + draft + `>` + done, []string{"the mail is written"}},
		"the envelope is made": {`^openat\(.*"` + envelope + `", [^)]*O_CREAT`, []string{"the mail is made"}}, // which makes it void
		"it is written":        {`^write\(\d+<` + envelope + `>`, []string{"the envelope is made"}},
		"it is fsynced":        {`^fsync\(\d+<` + envelope + `>` + done, []string{"it is written"}},
		"its name is fsynced":  {`^fsync\(\d+<` + p + `/pending/[^/>]+>` + done, []string{"the envelope is made"}},
		"the mail is one":      {`^renameat.*"` + draft + `", .*"` + p + `/new/` + name + `"` + done, []string{"the mail is fsynced", "it is fsynced", "its name is fsynced"}},
		"that is fsynced":      {`^fsync\(\d+<` + p + `/new>` + done, []string{"the mail is one"}},
		"the reply":            {`^write\(\d+<[^>]*(UNIX|socket)[^>]*(>[^>]*)*>, "250 2\.0\.0`, []string{"that is fsynced"}},
	}
	at := -1 // where the last mail's reply ended
	for number := range 3 {
		ended := make(map[string]int)
		var find func(step string) int
		find = func(step string) int {
			if _, known := ended[step]; known {
				return ended[step]
			}
			from := at
			for _, before := range steps[step].after {
				from = max(from, find(before))
			}
			pattern := regexp.MustCompile(steps[step].pattern)
			i := slices.IndexFunc(calls, func(c call) bool { return c.began > from && pattern.MatchString(c.text) })
			if i < 0 {
				trace, _ := os.ReadFile(tracer.file)
				t.Fatalf("mail %d: %s: no such system call after line %d of\n%s", number, step, from+1, trace)
			}
			ended[step] = calls[i].end
			return ended[step]
		}
		at = find("the reply")
	}
	first := regexp.MustCompile(`^fsync\(\d+<` + p + `/pending>\)\s+= 0$`)
	made := slices.IndexFunc(calls, func(c call) bool { return first.MatchString(c.text) })
	into := regexp.MustCompile(`^openat\(.*"` + envelope)
	used := slices.IndexFunc(calls, func(c call) bool { return into.MatchString(c.text) })
	if made < 0 || calls[made].end > calls[used].began {
		t.Error("the folder for envelopes was used before it was durable")
	}
}

// However long the disk takes for the envelope's name, which is made durable beside the rest: the reply waits for it.
func TestReplyWaitsForTheEnvelopesName(t *testing.T) {
	collector, env, path := spooler(t)
	if reply := offer(t, env, 0); !strings.HasPrefix(reply, "250 ") {
		t.Fatalf("got %q", reply)
	}
	tracer := trace(t, collector, "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=500000", "-P", bucketOf(t, path)) // microseconds
	if reply := offer(t, env, 1); !strings.HasPrefix(reply, "250 ") {
		t.Fatalf("got %q", reply)
	}
	seen := string(readFile(t, tracer.file))
	tracer.detach(t)
	if !regexp.MustCompile(`(?m)fsync.*= 0( \(DELAYED\))?$`).MatchString(seen) {
		t.Errorf("the reply came while the folder was being fsynced: %q", seen)
	}
}

// bucketOf returns the folder that envelopes are put into now.
func bucketOf(t *testing.T, path string) string {
	t.Helper()
	buckets, err := filepath.Glob(filepath.Join(path, "pending", "*"))
	if err != nil || len(buckets) != 1 {
		t.Fatalf("the folders of envelopes: %q, %v", buckets, err)
	}
	return buckets[0]
}

// Whatever the disk says no to, the sender keeps the mail, nothing of it is left here, and service goes on afterwards.
func TestFaultsOfTheDisk(t *testing.T) {
	t.Parallel() // it mostly waits for the maildir to be trusted again
	collector, env, path := spooler(t)
	if reply := offer(t, env, 0); !strings.HasPrefix(reply, "250 ") {
		t.Fatalf("got %q", reply)
	}
	bucket, folder := bucketOf(t, path), filepath.Join(path, "new")
	const temporary, noRoom = "451 4.3.0 ", "452 4.3.1 "
	faults := []struct {
		name   string
		reply  string
		inject string
		where  []string
	}{
		{"fsync of the mail fails", temporary, "fsync:error=EIO", nil},
		{"no room at fsync", noRoom, "fsync:error=ENOSPC", nil},
		{"quota at fsync", noRoom, "fsync:error=EDQUOT", nil},
		{"fsync of the envelopes' folder fails", temporary, "fsync:error=EIO", []string{"-P", bucket}},
		{"fsync of the mails' folder fails", temporary, "fsync:error=EIO", []string{"-P", folder}},
		{"rename fails", temporary, "renameat:error=EIO", nil},
		{"no room at rename", noRoom, "renameat:error=ENOSPC", nil},
		{"quota at rename", noRoom, "renameat:error=EDQUOT", nil},
		{"read-only", temporary, "openat:error=EROFS", nil},
		{"no room for a file", noRoom, "openat:error=ENOSPC", nil},
		{"no more file descriptors", temporary, "openat:error=EMFILE", nil},
	}
	for i, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			rig.Eventually(t, 10*time.Second, "mail is taken", func() bool { return takesMail(socketOf(env)) })
			tracer := trace(t, collector, append([]string{"-e", "inject=" + fault.inject}, fault.where...)...)
			reply := offer(t, env, 100+i)
			tracer.detach(t)
			if !strings.HasPrefix(reply, fault.reply) {
				t.Errorf("the reply is %q, want %s", reply, fault.reply)
			}
			if tmp, mails, envelopes := count(t, filepath.Join(path, "tmp")), mailFiles(t, path), waiting(t, path); tmp != 0 || mails != i+1 || envelopes != i+1 {
				t.Errorf("%d files in tmp, %d mails, %d envelopes; want 0, %d, %d", tmp, mails, envelopes, i+1, i+1)
			}
			rig.Eventually(t, 10*time.Second, "mail is taken again", func() bool { return takesMail(socketOf(env)) })
			if reply := offer(t, env, 200+i); !strings.HasPrefix(reply, "250 ") {
				t.Errorf("afterwards the reply is %q", reply)
			}
		})
	}
}

// A SIGKILL at any step leaves a whole mail or none, and the next start knows which.
func TestKilledAtEachStep(t *testing.T) {
	collector, env, path := spooler(t)
	if reply := offer(t, env, 0); !strings.HasPrefix(reply, "250 ") {
		t.Fatalf("got %q", reply)
	}
	folder := filepath.Join(path, "new")
	steps := []struct {
		name, call string
		where      func() []string
		kept       int // mails
	}{
		{"before anything is fsynced", "fsync", func() []string { return nil }, 0},
		{"before the envelope's name is fsynced", "fsync", func() []string { return []string{"-P", bucketOf(t, path)} }, 0},
		{"before the mail has its name", "renameat", func() []string { return nil }, 0},
		{"before the mail's name is fsynced", "fsync", func() []string { return []string{"-P", folder} }, 1},
	}
	kept := 1
	for i, step := range steps {
		again := func() *process { return launch(t, env) } // it outlives the step
		t.Run(step.name, func(t *testing.T) {
			// Each start begins a new folder for envelopes; the one of the mails of before is made one with it.
			if reply := offer(t, env, 10+i); !strings.HasPrefix(reply, "250 ") {
				t.Fatalf("got %q", reply)
			}
			kept++
			gather(t, path)
			tracer := trace(t, collector, append([]string{"-e", "inject=" + step.call + ":signal=KILL"}, step.where()...)...)
			if reply := offer(t, env, 100+i); reply != "" && !strings.Contains(reply, "EOF") && !strings.Contains(reply, "reset") {
				t.Errorf("the reply is %q", reply)
			}
			_ = tracer.cmd.Wait()
			_ = collector.cmd.Wait()
			kept += step.kept
			if mails := mailFiles(t, path); mails != kept {
				t.Errorf("%d mails after the kill, want %d", mails, kept)
			}
			collector = again()
			if tmp, mails, envelopes := count(t, filepath.Join(path, "tmp")), mailFiles(t, path), waiting(t, path); tmp != 0 || mails != kept || envelopes != kept {
				t.Errorf("%d files in tmp, %d mails, %d envelopes; want 0, %d, %d", tmp, mails, envelopes, kept, kept)
			}
		})
	}
}

// gather moves envelopes into the youngest folder of pending/, and removes the others.
func gather(t *testing.T, path string) {
	t.Helper()
	buckets, err := filepath.Glob(filepath.Join(path, "pending", "*"))
	if err != nil {
		t.Fatal(err)
	}
	youngest := buckets[len(buckets)-1]
	for _, bucket := range buckets[:len(buckets)-1] {
		envelopes, err := filepath.Glob(filepath.Join(bucket, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, envelope := range envelopes {
			if err := os.Rename(envelope, filepath.Join(youngest, filepath.Base(envelope))); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(bucket); err != nil {
			t.Fatal(err)
		}
	}
}
