package maildir

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// folder is a directory that many write to at once. Their fsyncs of it are shared: one that begins after a rename makes that
// rename durable, for however many waited for it.
type folder struct {
	path string

	mu      sync.Mutex
	syncing bool
	next    *round // of those who came after the running fsync began
}

type round struct {
	done chan struct{}
	err  error
}

// sync returns when a whole fsync of the directory has passed since it was called.
func (f *folder) sync() error { return f.begin().wait() }

// wait returns when the fsync has passed.
func (r *round) wait() error {
	<-r.done
	return r.err
}

// begin returns an fsync of the directory that begins after it was called.
func (f *folder) begin() *round {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.next
	if r == nil {
		r = &round{done: make(chan struct{})}
		f.next = r
	}
	if !f.syncing {
		f.syncing = true
		go f.run()
	}
	return r
}

// run serves one round after the other, until nobody waits.
func (f *folder) run() {
	for {
		f.mu.Lock()
		r := f.next
		f.next = nil
		f.syncing = r != nil
		f.mu.Unlock()
		if r == nil {
			return
		}
		r.err = syncFolder(f.path)
		close(r.done)
	}
}

func syncFolder(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}

// A bucket takes this many mails, and mails for so long; then the next one is begun.
const (
	bucketMails = 10_000
	bucketLasts = 10 * time.Minute
)

// bucket is the folder of pending/ that Store fills now.
type bucket struct {
	mu      sync.Mutex
	current *folder
	mails   int
	began   time.Time
}

// take returns the bucket for one more mail, and its name. A new one is durable before anything is put into it.
func (b *bucket) take(pending string) (*folder, string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.current == nil || b.mails >= bucketMails || time.Since(b.began) > bucketLasts {
		path := filepath.Join(pending, bucketName(time.Now()))
		if err := os.Mkdir(path, 0o700); err != nil {
			return nil, "", err
		}
		if err := syncFolder(pending); err != nil {
			return nil, "", errors.Join(err, os.Remove(path))
		}
		b.current, b.mails, b.began = &folder{path: path}, 0, time.Now()
	}
	b.mails++
	return b.current, filepath.Base(b.current.path), nil
}

// isCurrent tells whether a bucket may still get mails.
func (b *bucket) isCurrent(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.current != nil && filepath.Base(b.current.path) == name
}

// bucketName returns a name that no bucket has, and that sorts by time.
func bucketName(at time.Time) string {
	return at.UTC().Format("20060102T150405.000000") + "-" + random()
}

// bucketPattern is how bucket names look.
var bucketPattern = regexp.MustCompile(`^\d{8}T\d{6}\.\d{6}-[0-9a-f]{16}$`)

// create makes a file of its own, and returns it open, not fsynced. On an error the file need not be whole.
func create(path string, data []byte) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err := file.Write(data); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// write makes a file of its own and fsyncs it when it must last. On an error nothing is left of it.
func write(path string, data []byte, durable bool) error {
	file, err := create(path, data)
	if err == nil && durable {
		err = file.Sync()
	}
	if file != nil {
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return errors.Join(err, remove(path))
	}
	return nil
}
