package maildir

import (
	"errors"
	"os"
	"sync"

	"github.com/rabbitmq/amqp091-go"
)

// writers is how many goroutines write copies: one at a time would wait for the disk, and many would wait for each other.
const writers = 2

// writer writes copies behind the answers to their senders. What waits is bounded by bytes; whoever comes when that is used up waits as well,
// so no copy is dropped in silence and the disk sets the pace. It has goroutines only while there is something to write.
type writer struct {
	*sync.Mutex
	changed *sync.Cond // less waits, or a goroutine has ended
	limit   int64
	line    []amqp091.Publishing
	bytes   int64 // of those that wait or are being written
	running int
}

func newWriter(limit int64) writer {
	mu := new(sync.Mutex)
	return writer{Mutex: mu, changed: sync.NewCond(mu), limit: limit}
}

// Keep keeps a copy of a mail that the broker has, when the maildir is one that keeps all; else it does nothing. It waits only while too many
// bytes of copies are unwritten, and then for the disk. The copy is written soon: Run waits for that at its end, and a crash in between loses it.
// The message must not be changed any more. When a copy cannot be written the log says so.
func (m *Maildir) Keep(message amqp091.Publishing) {
	if m.cfg.Keep != KeepAll {
		return
	}
	w, size := &m.writer, copySize(&message)
	w.Lock()
	defer w.Unlock()
	for w.bytes > 0 && w.bytes+size > w.limit {
		w.changed.Wait()
	}
	w.line = append(w.line, message)
	w.bytes += size
	if w.running < writers {
		w.running++
		go m.writeCopies()
	}
}

// copySize is what a copy weighs while it waits: the bytes of the mail, and about as much as the rest has at least, so that empty ones are
// bounded as well.
func copySize(message *amqp091.Publishing) int64 { return int64(len(message.Body)) + 2<<10 }

// writeCopies writes what waits, until nothing does.
func (m *Maildir) writeCopies() {
	w := &m.writer
	w.Lock()
	defer w.Unlock()
	for len(w.line) > 0 {
		message := w.line[0]
		w.line[0] = amqp091.Publishing{} // or its body would stay
		w.line = w.line[1:]
		w.Unlock()
		if err := m.keep(&message); err != nil {
			m.log.Warn().Err(err).Str("message_id", message.MessageId).Msg("a copy of a confirmed mail could not be kept")
		}
		w.Lock()
		w.bytes -= copySize(&message)
		w.changed.Broadcast()
	}
	w.line = nil
	w.running--
	w.changed.Broadcast()
}

// wait returns when all copies are written. There must be no more to come.
func (w *writer) wait() {
	w.Lock()
	defer w.Unlock()
	for w.running > 0 {
		w.changed.Wait()
	}
}

// keep writes one copy. Nothing is owed to it, so it is not fsynced; but its order is that of Store, so that a crash leaves a whole copy or none.
// Every error is an *Error, and means that there is no copy.
func (m *Maildir) keep(message *amqp091.Publishing) error {
	name, data, err := m.admit(message, newRecord(message))
	if err != nil {
		return err
	}
	bucket, err := m.copies.bucket(m.path(doneFolder))
	if err != nil {
		return m.failure("make a folder for envelopes", err)
	}
	tmp, envelope := m.path(tmpFolder, name), bucket+"/"+name+envelopeSuffix
	if err = write(tmp, message.Body, false); err == nil {
		if err = write(envelope, data, false); err == nil {
			err = os.Rename(tmp, m.path(newFolder, name))
		}
	}
	if err != nil {
		return m.failure("keep a copy", errors.Join(err, remove(envelope), remove(tmp)))
	}
	m.metrics.kept.Inc()
	m.copies.add(1, int64(len(message.Body)))
	return nil
}
