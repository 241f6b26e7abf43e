package auth

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// The test binary itself, started with this variable, replaces the file that it names.
const replaceVariable = "SPAMTRAPS_TEST_REPLACE"

func TestMain(m *testing.M) {
	if path := os.Getenv(replaceVariable); path != "" {
		runtime.LockOSThread() // strace counts calls by thread
		if err := replaceFile(path, []byte("r-1\n")); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// traced runs that under strace, and returns the system calls.
func traced(t *testing.T, path string, args ...string) (trace string, survived bool) {
	t.Helper()
	output := filepath.Join(t.TempDir(), "trace")
	cmd := exec.CommandContext(t.Context(), "strace", append(append([]string{"-f", "-y", "-o", output}, args...), os.Args[0])...)
	cmd.Env = append(os.Environ(), replaceVariable+"="+path, "GORACE=atexit_sleep_ms=0") // the race detector sleeps for a second at each exit
	out, err := cmd.CombinedOutput()
	data, readErr := os.ReadFile(output)
	if readErr != nil {
		t.Fatalf("strace, which `make deps` installs: %v, %s", err, out)
	}
	return string(data), err == nil
}

// The new token is on the disk, under its name, before anything else is done: written, fsynced, renamed, the folder fsynced.
func TestOrderOnTheDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "refresh")
	write(t, path, "r-0\n")
	trace, survived := traced(t, path, "-e", "trace=write,fsync,renameat")
	p := regexp.QuoteMeta(path)
	order := regexp.MustCompile(`(?s)write\(\d+<` + p + `\.new>, "r-1\\n".*fsync\(\d+<` + p + `\.new>\)\s+= 0.*renameat\([^\n]*"` + p + `\.new", [^\n]*"` + p +
		`"\)\s+= 0.*fsync\(\d+<` + regexp.QuoteMeta(filepath.Dir(path)) + `>\)\s+= 0`)
	if !survived || !order.MatchString(trace) || read(t, path) != "r-1\n" {
		t.Errorf("the order is not that of a durable replacement:\n%s", trace)
	}
}

// A crash at any step leaves the old token or the new one, whole, and the next start can write.
func TestKilledAtEachStep(t *testing.T) {
	for _, row := range []struct{ call, want string }{{"fsync", "r-0\n"}, {"renameat", "r-0\n"}} {
		path := filepath.Join(t.TempDir(), "refresh")
		write(t, path, "r-0\n")
		trace, survived := traced(t, path, "-e", "trace=write,fsync,renameat", "-e", "inject="+row.call+":signal=KILL:when=1")
		if survived || !strings.Contains(trace, "killed by SIGKILL") {
			t.Errorf("%s: it was not killed:\n%s", row.call, trace)
		}
		if got := read(t, path); got != row.want {
			t.Errorf("%s: the file holds %q", row.call, got)
		}
		if err := replaceFile(path, []byte("r-2\n")); err != nil || read(t, path) != "r-2\n" {
			t.Errorf("%s: afterwards: %v, %q", row.call, err, read(t, path))
		}
		if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
			t.Errorf("%s: left behind: %q", row.call, left)
		}
	}
}

// What the disk refuses leaves the old token as it is.
func TestFaultsOfTheDisk(t *testing.T) {
	for _, fault := range []string{"fsync:error=EIO:when=1", "fsync:error=ENOSPC:when=1", "renameat:error=ENOSPC", "write:error=ENOSPC:when=1"} {
		path := filepath.Join(t.TempDir(), "refresh")
		write(t, path, "r-0\n")
		_, survived := traced(t, path, "-P", path, "-P", path+".new", "-e", "trace=write,fsync,renameat", "-e", "inject="+fault)
		left, _ := filepath.Glob(path + ".*")
		if survived || read(t, path) != "r-0\n" || len(left) != 0 {
			t.Errorf("%s: survived %v, the file holds %q, left behind %q", fault, survived, read(t, path), left)
		}
	}
}
