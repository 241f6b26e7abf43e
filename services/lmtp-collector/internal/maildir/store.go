package maildir

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

// Store keeps a mail until the broker has it. It blocks until mail and envelope are fsynced. Every error is an *Error, and means that
// nothing of the mail is left here.
func (m *Maildir) Store(message amqp091.Publishing) error {
	name, data, err := m.admit(&message, newRecord(&message))
	if err != nil {
		return err
	}
	bucket, bucketName, err := m.bucket.take(m.path(pendingFolder))
	if err != nil {
		return m.failure("make a folder for envelopes", err)
	}
	w := Waiting{Name: name, Size: int64(len(message.Body)), Since: time.Now(), bucket: bucketName}
	m.queue.hold(w)
	if err := m.put(w, bucket, message.Body, data); err != nil {
		m.queue.letGo(name)
		return err
	}
	m.metrics.stored.Inc()
	m.queue.add(w)
	return nil
}

// put writes a mail and its envelope. The mail gets its name last, when all the rest is durable: a mail in new/ without an envelope would be
// nobody's, and an envelope whose mail is in tmp/ is void.
func (m *Maildir) put(w Waiting, bucket *folder, body, data []byte) error {
	tmp, mail, envelope := m.path(tmpFolder, w.Name), m.path(newFolder, w.Name), m.envelopeOf(w)
	err := m.writeBoth(tmp, body, envelope, data, bucket)
	if err == nil {
		err = os.Rename(tmp, mail)
	}
	if err == nil {
		err = m.mails.sync()
	}
	if err == nil {
		return nil
	}
	_ = os.Remove(envelope) // first: an envelope without a mail looks as if somebody had deleted that
	_ = os.Remove(mail)
	_ = os.Remove(tmp) // what cannot be removed is swept at the next start
	return m.failure("store a mail", err)
}

// writeBoth writes the mail and then its envelope, and returns when both and the envelope's folder are fsynced. The three are on their way to
// the disk at once.
func (m *Maildir) writeBoth(mail string, body []byte, envelope string, data []byte, bucket *folder) error {
	mailFile, err := create(mail, body)
	if err != nil {
		return err
	}
	envelopeFile, err := create(envelope, data)
	if err != nil {
		return errors.Join(err, mailFile.Close())
	}
	named := bucket.begin()
	settled := make(chan error, 1)
	go func() { settled <- settle(envelopeFile) }()
	return errors.Join(settle(mailFile), <-settled, named.wait())
}

// StoreAside keeps a mail that the broker will never take, and why. It blocks until both are fsynced. Every error is an *Error,
// and means that nothing of the mail is left here.
func (m *Maildir) StoreAside(message amqp091.Publishing, why string) error {
	record := newRecord(&message)
	record.setAside(why)
	name, err := m.prepare(&message, record)
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
	m.metrics.aside.Inc()
	return nil
}

func (r *Record) setAside(why string) {
	now := time.Now().UTC()
	r.Aside, r.AsideAt = why, &now
}

// admit returns a name for a mail, and its envelope as it is written, when there is room for both.
func (m *Maildir) admit(message *amqp091.Publishing, record *Record) (name string, data []byte, err error) {
	data, err = record.encode()
	if err != nil {
		return "", nil, &Error{Err: err}
	}
	if err := m.makeRoom(int64(len(message.Body) + len(data))); err != nil {
		return "", nil, err
	}
	return m.newName(time.Now(), len(message.Body)), data, nil
}

// prepare writes a mail and its envelope into tmp/, and fsyncs them. On an error nothing of them is left there.
func (m *Maildir) prepare(message *amqp091.Publishing, record *Record) (name string, err error) {
	name, data, err := m.admit(message, record)
	if err != nil {
		return "", err
	}
	if err := write(m.path(tmpFolder, name), message.Body, true); err != nil {
		return "", m.failure("write a mail", err)
	}
	if err := write(m.path(tmpFolder, name+envelopeSuffix), data, true); err != nil {
		m.discard(name)
		return "", m.failure("write an envelope", err)
	}
	return name, nil
}

// isUnwritten tells whether a mail is in tmp/, so that its envelope is void.
func (m *Maildir) isUnwritten(name string) bool {
	path, err := there(m.path(tmpFolder, name))
	return path != "" && err == nil
}

// discard removes what is left of a mail in tmp/.
func (m *Maildir) discard(name string) {
	_ = os.Remove(m.path(tmpFolder, name+envelopeSuffix)) // what cannot be removed is swept at the next start
	_ = os.Remove(m.path(tmpFolder, name))
}

// sweep removes what a crash has left in tmp/, and nothing of anybody else's: mail programs write there too.
func (m *Maildir) sweep() error {
	entries, err := os.ReadDir(m.path(tmpFolder))
	if err != nil {
		return err
	}
	envelopes, err := m.voidBuckets()
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
		if suffix == "" { // a mail that never got to new/; its envelope may be in its bucket already
			for _, bucket := range envelopes {
				if err := remove(bucket + "/" + name + envelopeSuffix); err != nil {
					return err
				}
			}
		}
		if err := remove(m.path(tmpFolder, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// youngest is in how many buckets of copies the envelope of one that was being written is looked for: it was in the last.
const youngest = 8

// voidBuckets returns the folders in which there may be an envelope whose mail is in tmp/ yet.
func (m *Maildir) voidBuckets() ([]string, error) {
	var paths []string
	for _, folder := range []string{pendingFolder, doneFolder} {
		buckets, err := listFolder(m.path(folder))
		if err != nil {
			return nil, err
		}
		if folder == doneFolder {
			buckets = buckets[max(0, len(buckets)-youngest):]
		}
		for _, bucket := range buckets {
			paths = append(paths, m.path(folder, bucket))
		}
	}
	return paths, nil
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
