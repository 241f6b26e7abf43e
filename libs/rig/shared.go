package rig

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// shared is a container that all test processes use together. Each holds a shared lock on a file until it ends, so that nobody
// replaces the container under another.
type shared struct {
	name  string // of the container
	users string // name of the file

	once sync.Once
	file *os.File
}

var (
	brokerShared  = shared{name: sharedName, users: "spamtraps-rig.users"}
	dovecotShared = shared{name: sharedDovecotName, users: "spamtraps-rig-dovecot.users"}
)

func (s *shared) open(t testing.TB) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(os.TempDir(), s.users), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// use marks the container as used by this process.
func (s *shared) use(t testing.TB) {
	t.Helper()
	s.once.Do(func() {
		s.file = s.open(t)
		if err := syscall.Flock(int(s.file.Fd()), syscall.LOCK_SH); err != nil {
			t.Fatalf("lock %s: %v", s.file.Name(), err)
		}
	})
}

// inUse tells whether some test process works with the container right now, so that it must stay although there is a newer
// image. One that does not run at all serves nobody.
func (s *shared) inUse(t testing.TB) bool {
	t.Helper()
	if state, err := docker("container", "inspect", "-f", "{{.State.Running}}", s.name); err != nil || state != "true" {
		return false
	}
	f := s.open(t)
	defer func() { _ = f.Close() }()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil
}

// runs tells whether the container is up and made from this very image.
func (s *shared) runs(t testing.TB, image string) bool {
	t.Helper()
	state, err := docker("container", "inspect", "-f", "{{.State.Running}} {{.Image}}", s.name)
	return err == nil && state == "true "+Docker(t, "image", "inspect", "-f", "{{.Id}}", image)
}
