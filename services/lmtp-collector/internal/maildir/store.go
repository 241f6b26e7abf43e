package maildir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// Store keeps a mail until the broker has it. It blocks until mail and envelope are fsynced. Every error is an *Error, and means that
// nothing of the mail is left here that would be published.
func (m *Maildir) Store(message amqp091.Publishing) error {
	data, err := m.encode(&message, newRecord(&message))
	if err != nil {
		return err
	}
	bucket, bucketName, err := m.bucket.take(m.path(pendingFolder))
	if err != nil {
		return m.failure("make a folder for envelopes", err)
	}
	w := Waiting{Name: m.newName(time.Now(), len(message.Body)), Size: int64(len(message.Body)), Since: time.Now(), bucket: bucketName}
	m.queue.hold(w)
	if err := m.storeFiles(w, message.Body, data, bucket); err != nil {
		m.undo(w)
		return m.failure("store a mail", err)
	}
	m.metrics.stored.Inc()
	m.queue.add(w)
	return nil
}

// storeFiles makes a mail and its envelope durable, and then makes the mail one that waits. The mail's file comes first: it is what makes
// the envelope void.
func (m *Maildir) storeFiles(w Waiting, body, envelope []byte, bucket *folder) error {
	draft := m.path(tmpFolder, w.Name)
	mail, err := create(draft, body)
	if err != nil {
		return err
	}
	defer func() { _ = mail.Close() }() // it is fsynced, or the mail is given up
	record, err := create(m.envelopeOf(w), envelope)
	if err != nil {
		return err
	}
	defer func() { _ = record.Close() }()
	named := bucket.begin()
	// A failed fsync is never tried again: the kernel may have dropped what it could not write, and would then say that all is well.
	err = errors.Join(record.Sync(), mail.Sync(), named.wait())
	if err == nil {
		err = os.Rename(draft, m.path(newFolder, w.Name))
	}
	if err == nil {
		err = m.mails.sync()
	}
	return err
}

// undo removes what a Store has left that failed. Without its envelope a mail is nobody's; while its envelope cannot be removed, a mail that
// is still in tmp/ has to stay there, or the envelope would not be void any more: the next start sweeps both.
func (m *Maildir) undo(w Waiting) {
	draft := m.path(tmpFolder, w.Name)
	if err := remove(m.envelopeOf(w)); err != nil {
		if _, err := os.Lstat(draft); errors.Is(err, fs.ErrNotExist) {
			m.queue.add(w) // it waits, and the sender has been told that it does not: there will be two
		}
		return
	}
	_ = remove(draft)
	_ = remove(m.path(newFolder, w.Name))
	m.queue.letGo(w.Name)
}

// Keep keeps a copy of a mail that the broker has, when the maildir is one that keeps all; else it does nothing. Nothing is owed to a
// copy, so it is not fsynced. Every error is an *Error, and means that there is no copy.
func (m *Maildir) Keep(message amqp091.Publishing) error {
	if m.cfg.Keep != KeepAll {
		return nil
	}
	data, err := m.encode(&message, newRecord(&message))
	if err != nil {
		return err
	}
	bucket, err := m.copies.bucket(m.path(doneFolder))
	if err != nil {
		return m.failure("make a folder for envelopes", err)
	}
	name := m.newName(time.Now(), len(message.Body))
	draft, mail := m.path(tmpFolder, name), m.path(newFolder, name)
	err = write(draft, message.Body, false)
	if err == nil {
		err = os.Rename(draft, mail)
	}
	if err == nil {
		err = write(filepath.Join(bucket, name+envelopeSuffix), data, false)
	}
	if err != nil {
		_ = remove(mail)
		_ = remove(draft)
		return m.failure("keep a copy", err)
	}
	m.metrics.kept.Inc()
	m.copies.add(1, int64(len(message.Body)))
	return nil
}

// StoreAside keeps a mail that the broker will never take, and why. It blocks until both are fsynced. Every error is an *Error,
// and means that nothing of the mail is left here.
func (m *Maildir) StoreAside(message amqp091.Publishing, why string) error {
	record := newRecord(&message)
	record.setAside(why)
	data, err := m.encode(&message, record)
	if err != nil {
		return err
	}
	name := m.newName(time.Now(), len(message.Body))
	draft, draftEnvelope := m.path(tmpFolder, name), m.path(tmpFolder, name+envelopeSuffix)
	mail, envelope := m.asidePaths(name)
	err = write(draft, message.Body, true)
	if err == nil {
		err = write(draftEnvelope, data, true)
	}
	if err == nil {
		err = os.Rename(draft, mail)
	}
	if err == nil {
		err = os.Rename(draftEnvelope, envelope)
	}
	if err == nil {
		err = syncFolder(m.path(asideFolder))
	}
	if err != nil {
		for _, path := range []string{envelope, mail, draftEnvelope, draft} {
			_ = remove(path) // what cannot be removed from tmp/ is swept at the next start
		}
		return m.failure("set a mail aside", err)
	}
	m.queue.asideBy(1)
	m.metrics.asideNew.Inc()
	return nil
}

func (r *Record) setAside(why string) {
	now := time.Now().UTC()
	r.Aside, r.AsideAt = why, &now
}

// encode returns the envelope of a mail, for both of which there is room.
func (m *Maildir) encode(message *amqp091.Publishing, record *Record) ([]byte, error) {
	data, err := record.encode()
	if err != nil {
		return nil, &Error{Err: err}
	}
	return data, m.makeRoom(int64(len(message.Body) + len(data)))
}

// sweep removes what a crash has left in tmp/, and nothing of anybody else's: mail programs write there too.
func (m *Maildir) sweep() error {
	entries, err := os.ReadDir(m.path(tmpFolder))
	if err != nil {
		return err
	}
	buckets, err := listFolder(m.path(pendingFolder))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := m.sweepBucket(entry); err != nil {
			return err
		}
		name, suffix := cutSuffix(entry.Name())
		if _, _, ours := parseName(name); !ours {
			continue
		}
		if suffix == "" {
			if err := m.sweepEnvelope(name, buckets); err != nil {
				return err
			}
		}
		if err := remove(m.path(tmpFolder, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// sweepEnvelope removes the envelope of a mail that lies in tmp/, unless that has got to new/ as well.
func (m *Maildir) sweepEnvelope(name string, buckets []string) error {
	if path, err := m.guess(name); path != "" || err != nil {
		return err
	}
	for _, bucket := range buckets {
		if err := remove(m.path(pendingFolder, bucket, name+envelopeSuffix)); err != nil {
			return err
		}
	}
	return nil
}

// sweepBucket removes a bucket that Retry had begun; one that is young may still be somebody's.
func (m *Maildir) sweepBucket(entry fs.DirEntry) error {
	if !entry.IsDir() || !bucketPattern.MatchString(entry.Name()) {
		return nil
	}
	info, err := entry.Info()
	if err != nil || time.Since(info.ModTime()) < time.Hour {
		return nil //nolint:nilerr // it has just left
	}
	return os.RemoveAll(m.path(tmpFolder, entry.Name()))
}

// cutSuffix tells what a file of ours is, by the end of its name.
func cutSuffix(name string) (base, suffix string) {
	for _, suffix := range []string{envelopeSuffix, mailSuffix} {
		if base, found := cut(name, suffix); found {
			return base, suffix
		}
	}
	return name, ""
}

func cut(name, suffix string) (string, bool) {
	if len(name) > len(suffix) && name[len(name)-len(suffix):] == suffix {
		return name[:len(name)-len(suffix)], true
	}
	return name, false
}

// remove deletes a file that need not be there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
