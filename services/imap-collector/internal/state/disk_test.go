package state

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"

	"github.com/rs/zerolog"
)

// The test binary itself, started with this variable, adds mails to the folder INBOX of the state that it names, one Add a mail.
const addVariable = "SPAMTRAPS_TEST_ADD"

func TestMain(m *testing.M) {
	if path := os.Getenv(addVariable); path != "" {
		os.Exit(addThree(path))
	}
	os.Exit(m.Run())
}

// addThree says "UID: ok" or "UID: failed" of each Add.
func addThree(path string) int {
	runtime.LockOSThread() // strace counts calls by thread
	s, err := Open(path, zerolog.Nop())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	f, err := s.Folder(anna, "INBOX", 7)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for uid := uint32(1); uid <= 3; uid++ {
		outcome := "ok"
		if err := f.Add([]uint32{uid}); err != nil {
			outcome = "failed"
		}
		fmt.Printf("%d: %s\n", uid, outcome)
	}
	return 0
}

// traced runs that under strace, and returns the system calls and what it said.
func traced(t *testing.T, path string, args ...string) (trace, said string) {
	t.Helper()
	output := filepath.Join(t.TempDir(), "trace")
	args = append([]string{"-f", "-y", "-o", output, "-e", "trace=write,fsync,renameat"}, args...)
	cmd := exec.CommandContext(t.Context(), "strace", append(args, os.Args[0])...)
	cmd.Env = append(os.Environ(), addVariable+"="+path, "GORACE=atexit_sleep_ms=0") // the race detector sleeps for a second at each exit
	out, _ := cmd.Output()                                                           // it may be killed
	data, err := os.ReadFile(output)
	if err != nil {
		t.Fatalf("strace, which `make deps` installs: %v", err)
	}
	return string(data), string(out)
}

// Before Add returns, what it was given is on the disk: the first time in a file that is written, fsynced and renamed, and the folder fsynced;
// then appended and fsynced.
func TestOrderOnTheDisk(t *testing.T) {
	dir := t.TempDir()
	trace, said := traced(t, dir)
	d := regexp.QuoteMeta(dir)
	const name = `/[0-9a-f]{40}\.uids`
	order := regexp.MustCompile(`(?s)write\(\d+<` + d + name + `\.new>, "spamtraps.*fsync\(\d+<` + d + name + `\.new>\)\s+= 0.*renameat\([^\n]*"` + d + name +
		`\.new", [^\n]*"` + d + name + `"\)\s+= 0.*fsync\(\d+<` + d + `>\)\s+= 0.*"1: ok.*` +
		`write\(\d+<` + d + name + `>, "2 .*fsync\(\d+<` + d + name + `>\)\s+= 0.*"2: ok.*` +
		`write\(\d+<` + d + name + `>, "3 .*fsync\(\d+<` + d + name + `>\)\s+= 0.*"3: ok`)
	if said != "1: ok\n2: ok\n3: ok\n" || !order.MatchString(trace) {
		t.Errorf("said %q; the order is not that of durable files:\n%s", said, trace)
	}
}

// What the disk refuses is not said to be remembered; the next Add, after room was made, remembers it too.
func TestFaultsOfTheDisk(t *testing.T) {
	for _, row := range []struct{ inject, said string }{
		{"write:error=ENOSPC:when=1", "1: failed\n2: ok\n3: ok\n"},
		{"fsync:error=EIO:when=1", "1: failed\n2: ok\n3: ok\n"},
		{"renameat:error=ENOSPC:when=1", "1: failed\n2: ok\n3: ok\n"},
		{"fsync:error=EIO:when=2", "1: failed\n2: ok\n3: ok\n"}, // of the folder
		{"fsync:error=ENOSPC:when=3", "1: ok\n2: failed\n3: ok\n"},
		{"write:error=ENOSPC:when=1+", "1: failed\n2: failed\n3: failed\n"},
	} {
		dir := t.TempDir()
		s, _ := open(t, dir) // so that the lock's write is not the first
		name := filepath.Join(dir, fileName(anna, "INBOX"))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		_, said := traced(t, dir, "-P", name, "-P", name+newSuffix, "-P", dir, "-e", "inject="+row.inject)
		if said != row.said {
			t.Errorf("%s: said %q", row.inject, said)
		}
		want := uint64(3)
		if row.inject == "write:error=ENOSPC:when=1+" {
			want = 0
		}
		s, _ = open(t, dir)
		if f := folder(t, s, "INBOX", 7); f.Len() != want {
			t.Errorf("%s: %d mails are remembered", row.inject, f.Len())
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*"+newSuffix)); len(left) != 0 {
			t.Errorf("%s: left behind: %q", row.inject, left)
		}
	}
}

// A crash at any step loses nothing that Add had said to be remembered.
func TestKilledAtEachStep(t *testing.T) {
	for _, row := range []struct {
		inject string
		said   string
		has    uint64
	}{
		{"fsync:signal=KILL:when=1", "", 0},
		{"renameat:signal=KILL:when=1", "", 0},
		{"fsync:signal=KILL:when=2", "", 1}, // the kernel lives, so what was renamed is there
		{"fsync:signal=KILL:when=3", "1: ok\n", 2},
		{"fsync:signal=KILL:when=4", "1: ok\n2: ok\n", 3},
	} {
		dir := t.TempDir()
		name := filepath.Join(dir, fileName(anna, "INBOX"))
		_, said := traced(t, dir, "-P", name, "-P", name+newSuffix, "-P", dir, "-e", "inject="+row.inject)
		s, _ := open(t, dir)
		f := folder(t, s, "INBOX", 7)
		if said != row.said || f.Len() != row.has {
			t.Errorf("%s: said %q, %d mails are remembered", row.inject, said, f.Len())
		}
		add(t, f, 9)
		s, _ = reopen(t, s)
		if f := folder(t, s, "INBOX", 7); f.Len() != row.has+1 {
			t.Errorf("%s: afterwards %d mails", row.inject, f.Len())
		}
	}
}
