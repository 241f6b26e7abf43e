package maildir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// Load returns a mail as it is to be published: bytes, properties and headers as they were stored. Its errors match ErrGone or
// ErrDamaged when the mail can never be had, which SetAside is for; ErrVersion when a newer version has to deliver it, and then it is not
// handed out again; any other is the disk's, and may pass.
func (m *Maildir) Load(w Waiting) (amqp091.Publishing, error) {
	record, body, err := m.load(w)
	if errors.Is(err, ErrVersion) {
		m.queue.leaveAlone()
	}
	if err != nil {
		return amqp091.Publishing{}, fmt.Errorf("maildir: read %s in %s: %w", w.Name, m.cfg.Path, err)
	}
	return record.Message(body), nil
}

func (m *Maildir) load(w Waiting) (*Record, []byte, error) {
	data, err := os.ReadFile(m.envelopeOf(w))
	if err != nil {
		return nil, nil, err
	}
	record, err := Decode(data)
	if err != nil {
		return nil, nil, err
	}
	body, err := os.ReadFile(m.path(newFolder, w.Name)) // it mostly lies where it was put
	if errors.Is(err, fs.ErrNotExist) {
		body, err = m.readElsewhere(w)
	}
	if err != nil {
		return nil, nil, err
	}
	if digestOf(body) != record.Digest() {
		return nil, nil, ErrDamaged
	}
	return record, body, nil
}

func (m *Maildir) readElsewhere(w Waiting) ([]byte, error) {
	path, err := m.find(w.Name, w.lined)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

func digestOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

func (m *Maildir) envelopeOf(w Waiting) string {
	return m.path(pendingFolder, w.bucket, w.Name+envelopeSuffix)
}

// find returns where a mail lies. Mail programs move mails from new/ to cur/ and put flags behind their names. One that is in no
// place that can be guessed is looked for in whole folders, unless that was done since a time and it was not there.
func (m *Maildir) find(name string, since time.Time) (string, error) {
	for range 3 { // it may be moved while we look
		path, err := m.guess(name)
		if path != "" || err != nil {
			return path, err
		}
		path, fresh := m.index.find(name, since)
		switch {
		case path == "" && fresh:
			return "", ErrGone
		case path != "":
			if _, err := os.Lstat(path); err == nil {
				return path, nil
			}
		}
		since = time.Now()
		if err := m.reindex(since); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("the mail %s is moved about all the time", name)
}

// guess returns where a mail lies if nothing but the flags of the maildir format were put behind its name, else "".
func (m *Maildir) guess(name string) (string, error) {
	for path := range m.places(name) {
		if _, err := os.Lstat(path); err == nil {
			return path, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", nil
}

// places yields where a mail may lie, the likely places first.
func (m *Maildir) places(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if !yield(m.path(newFolder, name)) {
			return
		}
		for _, flags := range flagSets {
			if !yield(m.path(curFolder, name+flags)) {
				return
			}
		}
		yield(m.path(asideFolder, name+mailSuffix))
	}
}

// flagSets are what may stand behind the name of a mail in cur/: any of the flags of the maildir format, in their order.
var flagSets = func() []string {
	const flags = "DFPRST"
	sets := []string{":2,", ":2,S", ""} // those that are usual come first
	for set := 1; set < 1<<len(flags); set++ {
		text := []byte(":2,")
		for i := range len(flags) {
			if set>>i&1 == 1 {
				text = append(text, flags[i])
			}
		}
		sets = append(sets, string(text))
	}
	return sets
}()

// index is where mails lay when the folders were last looked through.
type index struct {
	mu    sync.Mutex
	began time.Time         // of the look
	paths map[string]string // by base name: those that are in line, and those whose place cannot be guessed
}

// find returns where a mail lay, "" when nowhere, and whether the look was since a time.
func (i *index) find(name string, since time.Time) (path string, fresh bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.paths[name], i.began.After(since)
}

// reindex looks the folders through, unless somebody else has since a time.
func (m *Maildir) reindex(since time.Time) error {
	m.looking.Lock()
	defer m.looking.Unlock()
	if _, fresh := m.index.find("", since); fresh {
		return nil
	}
	began, paths := time.Now(), make(map[string]string)
	for _, folder := range []string{newFolder, curFolder} {
		err := eachName(m.path(folder), func(names []string) {
			m.queue.mu.Lock()
			defer m.queue.mu.Unlock()
			for _, name := range names {
				base, flags, _ := strings.Cut(name, ":")
				if m.queue.taken[base] || (flags != "" && (folder == newFolder || !slices.Contains(flagSets, ":"+flags))) {
					paths[base] = m.path(folder, name)
				}
			}
		})
		if err != nil {
			return err
		}
	}
	m.index.mu.Lock()
	defer m.index.mu.Unlock()
	m.index.began, m.index.paths = began, paths
	return nil
}

// eachName calls use with the names in a folder, some hundred at a time.
func eachName(path string, use func(names []string)) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	for {
		names, err := directory.Readdirnames(1000)
		use(names)
		switch {
		case errors.Is(err, io.EOF):
			return directory.Close()
		case err != nil:
			return errors.Join(err, directory.Close())
		}
	}
}

// Delivered says that the broker has a mail: its copy stays, or goes, as Config.Keep has it. An error means that the mail may be
// handed out again after a restart.
func (m *Maildir) Delivered(w Waiting) error {
	to := m.path(goneFolder, w.Name+envelopeSuffix)
	if m.cfg.Keep == KeepAll {
		bucket := m.path(doneFolder, w.bucket)
		if err := os.Mkdir(bucket, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return m.failure("make a folder for envelopes", err)
		}
		to = filepath.Join(bucket, w.Name+envelopeSuffix)
	}
	if err := os.Rename(m.envelopeOf(w), to); err != nil {
		return m.failure("note that a mail is delivered", err)
	}
	m.queue.leave(w)
	m.metrics.delivered.Inc()
	if m.cfg.Keep == KeepAll {
		m.copies.add(1, w.Size)
		return nil
	}
	select {
	case m.leaving <- struct{}{}:
	default: // it is known already
	}
	return nil
}

// removeMail deletes a mail, wherever it lies. It need not be there.
func (m *Maildir) removeMail(name string, since time.Time) error {
	err := os.Remove(m.path(newFolder, name)) // it mostly lies where it was put
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	path, err := m.find(name, since)
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	return remove(path)
}

func (m *Maildir) asidePaths(name string) (mail, envelope string) {
	return m.path(asideFolder, name+mailSuffix), m.path(asideFolder, name+envelopeSuffix)
}

// SetAside moves a mail that can never be delivered out of the way, with what is known about it and why. It is never deleted:
// `lmtp-collector spool` shows it. An error means that it still waits, and is handed out again after a restart.
func (m *Maildir) SetAside(w Waiting, why string) error {
	mail, envelope := m.asidePaths(w.Name)
	data, err := m.asideRecord(w, why)
	if err != nil {
		return m.failure("set a mail aside", err)
	}
	// The envelope leaves pending/ last, so that a crash leaves a mail that waits.
	err = write(m.path(tmpFolder, w.Name+envelopeSuffix), data, true)
	if err == nil {
		var path string
		if path, err = m.find(w.Name, w.lined); err == nil && path != mail {
			err = os.Rename(path, mail)
		}
	}
	if errors.Is(err, ErrGone) { // then the envelope is all there is
		err = nil
	}
	if err == nil {
		err = os.Rename(m.path(tmpFolder, w.Name+envelopeSuffix), envelope)
	}
	if err == nil {
		err = syncFolder(m.path(asideFolder))
	}
	if err == nil {
		err = os.Remove(m.envelopeOf(w))
	}
	if err != nil {
		return m.failure("set a mail aside", err)
	}
	m.queue.leave(w)
	m.queue.asideBy(1)
	m.metrics.asideOld.Inc()
	return nil
}

// asideRecord returns the envelope of a mail with why it is set aside. What cannot be read as an envelope is kept as it is.
func (m *Maildir) asideRecord(w Waiting, why string) ([]byte, error) {
	data, err := os.ReadFile(m.envelopeOf(w))
	if err != nil {
		return nil, err
	}
	record, err := Decode(data)
	if err != nil {
		return data, nil //nolint:nilerr // it is what is wrong with the mail
	}
	record.setAside(why)
	return record.encode()
}
