// Package maildir keeps mail on disk as long as the broker does not have it, or for good as a backup. Any mail program can open the
// maildir and sort mails about, so which of its folders a mail lies in proves nothing; what is true of a mail stands in its
// envelope, a file of ours beside it:
//
//	tmp/                  what is being written
//	new/, cur/            the mails, each exactly as it was received, where mail programs look for them
//	pending/BUCKET/*.json the envelopes of the mails that the broker does not have yet
//	done/BUCKET/*.json    the envelopes of copies: mails that the broker has
//	gone/*.json           the envelopes of mails that the broker has, and that are about to be deleted
//	aside/                mails that can never pass, with their envelopes, which say why
//	lock                  held by the one process that writes here
//
// A mail and its envelope share the base name, which is all that they are found by: TIME.ID.HOST,S=SIZE, where the time
// sorts. A bucket is a folder of the mails of some minutes, ten thousand at most, and its name sorts as well; so the oldest mail is found
// without sorting millions of names.
//
// Store makes the mail in tmp/, then its envelope in its bucket, and fsyncs both and the bucket; moves the mail into new/, and fsyncs that; only
// then it returns. An envelope is void as long as the mail of its name lies in tmp/, so the one rename is what makes the mail
// wait. What goes wrong before is undone in the opposite order: the envelope goes first. A crash therefore leaves one of these, and
// the next Open makes of it:
//
//   - a mail in tmp/, whole or not: it was never answered for, and is swept;
//   - the same and an envelope, whole or not, in pending/: likewise. The envelope is swept first, or a crash of the sweep would leave one
//     that is not void any more;
//   - an envelope in pending/ and the mail in new/: the mail waits, whether its sender had our answer or not. Both are whole, since they
//     were fsynced before the rename;
//   - the last, and the mail under its name in tmp/ too, because a power cut came between the two halves of a rename, which not every
//     file system joins: the mail waits, and the name in tmp/ goes;
//   - an envelope in pending/ and no mail, because after a power cut the file system knew of one file and not of the other, which can only be
//     before the fsyncs had passed: it was never answered for. It looks like a mail that somebody deleted, and is set aside like one.
//
// A mail that the broker has leaves pending/ by a rename, into done/ when copies are kept, else into gone/, where Run finds it and deletes the
// mail and then the envelope: deleting may take longer than all else. So a crash leaves, and the next start makes of it:
//
//   - an envelope in done/: the mail is a copy;
//   - an envelope in gone/, with or without its mail: the deleting goes on.
//
// Nothing of this is fsynced: a power cut may bring mails of the last seconds back to pending/, and they are published again under the
// same message id. If their mail is gone already, which takes a file system that keeps the younger change and forgets the older one, they are
// set aside as deleted; the broker has them.
//
// A copy that was never in pending/ is moved into new/ and then gets its envelope in done/. A crash in between leaves a mail without one,
// which nobody publishes and nobody deletes; copies are a convenience.
package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// The folders of a maildir.
const (
	tmpFolder     = "tmp"
	newFolder     = "new"
	curFolder     = "cur"
	pendingFolder = "pending"
	doneFolder    = "done"
	goneFolder    = "gone"
	asideFolder   = "aside"
	lockFile      = "lock"
)

const (
	envelopeSuffix = ".json"
	mailSuffix     = ".eml" // of a mail in aside/
)

// troubleLasts is how long Ready says no after the disk did not do what it was asked to.
const troubleLasts = 2 * time.Second

// Maildir is one maildir that this process writes to. All methods are safe for concurrent use.
//
// The promise: when Store or StoreAside returns nil, the mail and all that is needed to publish it are on the disk,
// files and folders fsynced. A mail that waits is deleted only after Delivered, and one that was set aside never.
type Maildir struct {
	cfg     Config
	host    string
	lock    *os.File
	log     zerolog.Logger
	metrics metrics

	mails  folder // new/
	bucket bucket // what Store fills now
	queue  queue
	copies copies
	index  index

	looking sync.Mutex    // held by the one who looks the folders through
	leaving chan struct{} // has room for one word: there is something in gone/

	mu      sync.Mutex
	trouble error // of the disk, and
	since   time.Time
}

// Open makes the folder a maildir if it is none yet, locks it, and sweeps what a crash left in tmp/. What lies there is not read, so it
// takes no longer with millions of mails. It fails when another process has the lock, and when one of the folders is a
// symbolic link. Run must be called next; it closes the maildir. Metrics begin with spamtraps_maildir_.
func Open(cfg Config, log zerolog.Logger, reg prometheus.Registerer) (*Maildir, error) {
	cfg.Path = filepath.Clean(cfg.Path)
	m := &Maildir{cfg: cfg, host: hostName(), log: log, leaving: make(chan struct{}, 1)}
	if err := m.open(); err != nil {
		return nil, fmt.Errorf("open the maildir %s: %w", cfg.Path, err)
	}
	m.mails = folder{path: m.path(newFolder)}
	m.queue = newQueue()
	m.metrics = newMetrics(reg, m)
	return m, nil
}

func (m *Maildir) open() error {
	if err := makeFolder(m.cfg.Path, true); err != nil {
		return err
	}
	for _, name := range []string{tmpFolder, newFolder, curFolder, pendingFolder, doneFolder, goneFolder, asideFolder} {
		if err := makeFolder(m.path(name), false); err != nil {
			return err
		}
	}
	if err := syncFolder(m.cfg.Path); err != nil {
		return err
	}
	if err := m.takeLock(); err != nil {
		return err
	}
	if err := m.sweep(); err != nil {
		return errors.Join(err, m.lock.Close())
	}
	return nil
}

func makeFolder(path string, parents bool) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && parents:
		return os.MkdirAll(path, 0o700)
	case errors.Is(err, fs.ErrNotExist):
		return os.Mkdir(path, 0o700)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is no folder; a symbolic link is not followed", path)
	}
	return nil
}

// takeLock keeps other processes of ours out. The kernel drops the lock when the process ends, however it does.
func (m *Maildir) takeLock() error {
	file, err := os.OpenFile(m.path(lockFile), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(file.Name())
		return errors.Join(fmt.Errorf("process %q writes to it already: stop that one, or give each its own maildir", strings.TrimSpace(string(holder))),
			file.Close())
	}
	if err := file.Truncate(0); err != nil {
		return errors.Join(err, file.Close())
	}
	if _, err := fmt.Fprintln(file, os.Getpid()); err != nil {
		return errors.Join(err, file.Close())
	}
	m.lock = file
	return nil
}

// Run counts what lies in the maildir, deletes what is delivered, and drops copies that are too old or too many, until ctx ends; then it gives
// the lock back. Nothing else may use the maildir after that.
func (m *Maildir) Run(ctx context.Context) error {
	defer func() { _ = m.lock.Close() }()
	var deleting sync.WaitGroup
	deleting.Go(func() { m.deleteGone(ctx) })
	defer deleting.Wait()
	m.countAll(ctx)
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		m.dropCopies(ctx)
		m.queue.findOldest(m)
		m.countAside()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Ready returns nil when a Store now has a chance, else an *Error that says why not. It does not wait for the disk.
func (m *Maildir) Ready() error {
	m.mu.Lock()
	trouble, since := m.trouble, m.since
	m.mu.Unlock()
	if trouble != nil && time.Since(since) < troubleLasts {
		return trouble
	}
	if m.copies.any() { // they go first
		return nil
	}
	return m.room(0)
}

// room returns an *Error when the disk has too little room for size more bytes.
func (m *Maildir) room(size int64) error {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(m.cfg.Path, &disk); err != nil {
		return m.failure("look how much room there is", err)
	}
	free := int64(disk.Bavail) * disk.Bsize
	switch {
	case free-size <= m.cfg.MinFree:
		return &Error{Full: true, Err: fmt.Errorf("maildir: %s has %d MiB free, and MAILDIR_MIN_FREE is %d MiB", m.cfg.Path, free>>20, m.cfg.MinFree>>20)}
	case disk.Files > 0 && disk.Ffree < minFreeFiles:
		return &Error{Full: true, Err: fmt.Errorf("maildir: the disk of %s can hold only %d more files", m.cfg.Path, disk.Ffree)}
	}
	return nil
}

// minFreeFiles is how many further files a disk must be able to hold: each session may be writing two.
const minFreeFiles = 8

// path returns where something lies. It is called several times for each mail, and the parts are clean: nothing of filepath.Join's care is needed.
func (m *Maildir) path(parts ...string) string {
	size := len(m.cfg.Path)
	for _, part := range parts {
		size += 1 + len(part)
	}
	path := append(make([]byte, 0, size), m.cfg.Path...)
	for _, part := range parts {
		path = append(append(path, '/'), part...)
	}
	return string(path)
}

// hostName is the host's name as it may stand in a file name (the maildir format's rule for / and :).
func hostName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return strings.NewReplacer("/", `\057`, ":", `\072`, ",", `\054`).Replace(name)
}
