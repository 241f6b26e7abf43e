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
// nothing of the mail is left here.
func (m *Maildir) Store(message amqp091.Publishing) error {
	name, err := m.prepare(&message, newRecord(&message), true)
	if err != nil {
		return err
	}
	bucket, bucketName, err := m.bucket.take(m.path(pendingFolder))
	if err != nil {
		m.discard(name)
		return m.failure("make a folder for envelopes", err)
	}
	w := Waiting{Name: name, Size: int64(len(message.Body)), Since: time.Now(), bucket: bucketName}
	m.queue.hold(name)
	if err := m.publishFiles(name, m.envelopeOf(w), bucket); err != nil {
		m.queue.letGo(name)
		return err
	}
	m.metrics.stored.Inc()
	m.queue.add(w)
	return nil
}

// publishFiles moves a prepared mail and its envelope to where they belong, durably and in this order: a mail in new/ without an
// envelope would be nobody's.
func (m *Maildir) publishFiles(name, envelope string, bucket *folder) error {
	mail := m.path(newFolder, name)
	err := os.Rename(m.path(tmpFolder, name+envelopeSuffix), envelope)
	if err == nil {
		err = bucket.sync()
	}
	if err == nil {
		err = os.Rename(m.path(tmpFolder, name), mail)
	}
	if err == nil {
		err = m.mails.sync()
	}
	if err == nil {
		return nil
	}
	_ = os.Remove(envelope) // first: an envelope without a mail looks as if somebody had deleted that
	_ = os.Remove(mail)
	m.discard(name)
	return m.failure("store a mail", err)
}

// Keep keeps a copy of a mail that the broker has, when the maildir is one that keeps all; else it does nothing. Nothing is owed to a
// copy, so it is not fsynced. Every error is an *Error, and means that there is no copy.
func (m *Maildir) Keep(message amqp091.Publishing) error {
	if m.cfg.Keep != KeepAll {
		return nil
	}
	name, err := m.prepare(&message, newRecord(&message), false)
	if err != nil {
		return err
	}
	bucket, err := m.copies.bucket(m.path(doneFolder))
	if err == nil {
		err = os.Rename(m.path(tmpFolder, name), m.path(newFolder, name))
	}
	if err == nil {
		err = os.Rename(m.path(tmpFolder, name+envelopeSuffix), filepath.Join(bucket, name+envelopeSuffix))
	}
	if err != nil {
		_ = os.Remove(m.path(newFolder, name))
		m.discard(name)
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
	name, err := m.prepare(&message, record, true)
	if err != nil {
		return err
	}
	mail, envelope := m.asidePaths(name)
	err = os.Rename(m.path(tmpFolder, name), mail)
	if err == nil {
		err = os.Rename(m.path(tmpFolder, name+envelopeSuffix), envelope)
	}
	if err == nil {
		err = syncFolder(m.path(asideFolder))
	}
	if err != nil {
		_ = os.Remove(envelope)
		_ = os.Remove(mail)
		m.discard(name)
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

// prepare writes a mail and its envelope into tmp/. On an error nothing of them is left there.
func (m *Maildir) prepare(message *amqp091.Publishing, record *Record, durable bool) (name string, err error) {
	data, err := record.encode()
	if err != nil {
		return "", &Error{Err: err}
	}
	if err := m.makeRoom(int64(len(message.Body) + len(data))); err != nil {
		return "", err
	}
	name = m.newName(time.Now(), len(message.Body))
	if err := write(m.path(tmpFolder, name), message.Body, durable); err != nil {
		return "", m.failure("write a mail", err)
	}
	if err := write(m.path(tmpFolder, name+envelopeSuffix), data, durable); err != nil {
		m.discard(name)
		return "", m.failure("write an envelope", err)
	}
	return name, nil
}

// discard removes what is left of a mail in tmp/.
func (m *Maildir) discard(name string) {
	_ = os.Remove(m.path(tmpFolder, name+envelopeSuffix)) // what cannot be removed is swept at the next start
	_ = os.Remove(m.path(tmpFolder, name))
}

// sweep removes what a crash has left in tmp/, and nothing of anybody else's: mail programs write there too.
func (m *Maildir) sweep() error {
	began := time.Now()
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
		switch suffix {
		case "": // a mail that never got to new/; its envelope may be in its bucket already
			for _, bucket := range buckets {
				if err := remove(m.path(pendingFolder, bucket, name+envelopeSuffix)); err != nil {
					return err
				}
			}
		case goneSuffix:
			if err := m.removeMail(name, began); err != nil {
				return err
			}
		}
		if err := remove(m.path(tmpFolder, entry.Name())); err != nil {
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
	for _, suffix := range []string{envelopeSuffix, goneSuffix, mailSuffix} {
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
