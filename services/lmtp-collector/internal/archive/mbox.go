package archive

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"time"

	"spamtraps.internal/lmtp-collector/internal/maildir"
)

// fromLine begins each mail of an mbox (RFC 4155): "From ", the sender, and when it came.
const fromLine = "From "

func beginsLikeMbox(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	start := make([]byte, len(fromLine))
	n, err := io.ReadFull(f, start)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return false, err
	}
	return string(start[:n]) == fromLine, nil
}

// mboxFile is a source of the mails in an mbox file.
func mboxFile(path string, size, limit int64) Source {
	return Source{Name: path, Bytes: size, Mails: func() iter.Seq2[Mail, error] {
		return func(yield func(Mail, error) bool) {
			f, err := os.Open(path)
			if err != nil {
				yield(Mail{}, err)
				return
			}
			defer func() { _ = f.Close() }()
			readMbox(path, f, limit, yield)
		}
	}}
}

// stream is a source of one mail, or of the mails in an mbox. It can be read once.
func stream(name string, in io.Reader, limit int64) Source {
	return Source{Name: name, Mails: func() iter.Seq2[Mail, error] {
		return func(yield func(Mail, error) bool) {
			buffered := bufio.NewReaderSize(in, 64<<10)
			start, err := buffered.Peek(len(fromLine))
			if err != nil && !errors.Is(err, io.EOF) {
				yield(Mail{}, err)
				return
			}
			if string(start) == fromLine {
				readMbox(name, buffered, limit, yield)
				return
			}
			data, err := io.ReadAll(io.LimitReader(buffered, limit+1))
			if err == nil && int64(len(data)) > limit {
				data, err = nil, fmt.Errorf("%w: AMQP_MAX_MESSAGE_BYTES is %d", ErrTooLarge, limit)
			}
			yield(inMemory(name, mark(1), int64(len(data)), data, time.Time{}, time.Now(), err), nil)
		}
	}}
}

// mark writes the number of a mail so that marks sort.
func mark(number int) string { return fmt.Sprintf("%012d", number) }

func inMemory(name, mark string, size int64, body []byte, at, otherwise time.Time, err error) Mail {
	return Mail{
		Name: name, Mark: mark, Size: size,
		Envelope: func() (*maildir.Record, error) { return nil, nil }, //nolint:nilnil // there is none
		Body: func() ([]byte, time.Time, error) {
			if at.IsZero() {
				at = receivedAt(body, otherwise)
			}
			return body, at, err
		},
	}
}

// readMbox yields the mails of an mbox. A mail's bytes are those of the file, line ends included, without its From line and the
// empty line at its end; of lines that are quoted ">From ", however often, one > is taken away (mboxrd: what wrote them put it there).
func readMbox(name string, in io.Reader, limit int64, yield func(Mail, error) bool) {
	box := mbox{in: bufio.NewReaderSize(in, 64<<10), limit: limit}
	if !box.findFirst() {
		yield(Mail{}, box.failure("it does not begin with a From line, so it is no mbox"))
		return
	}
	opened := time.Now()
	for number := 1; box.more; number++ {
		from := box.from
		body, size, err := box.next()
		if box.err != nil {
			yield(Mail{}, box.failure(""))
			return
		}
		if !yield(inMemory(fmt.Sprintf("%s (mail %d)", name, number), mark(number), size, body, fromTime(from), opened, err), nil) {
			return
		}
	}
}

// mbox reads one, mail by mail.
type mbox struct {
	in    *bufio.Reader
	limit int64
	from  string // the From line of the next mail
	more  bool   // there is a next one
	err   error  // of in
}

func (b *mbox) failure(otherwise string) error {
	if b.err != nil {
		return b.err
	}
	return errors.New(otherwise)
}

// findFirst passes over empty lines before the first From line.
func (b *mbox) findFirst() bool {
	for {
		line, whole := b.line()
		switch {
		case strings.HasPrefix(string(line), fromLine):
			b.from, b.more = string(line), true
			b.rest(whole)
			return true
		case len(bytes.Trim(line, "\r\n")) > 0 || len(line) == 0 || !whole:
			return false
		}
	}
}

// line returns a line with its end, or, when whole is false, the first part of a long one. Nothing at all is the end.
func (b *mbox) line() (line []byte, whole bool) {
	line, err := b.in.ReadSlice('\n')
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return line, true
	case errors.Is(err, bufio.ErrBufferFull):
		return line, false
	}
	b.err = err
	return nil, true
}

// rest passes over the rest of a line.
func (b *mbox) rest(whole bool) {
	for !whole {
		_, whole = b.line()
	}
}

// next returns the mail after the From line that was read last, and what it takes of the file. A mail that is too large is read past.
func (b *mbox) next() (body []byte, size int64, err error) {
	size = int64(len(b.from))
	b.more = false
	var held []byte // an empty line, which may be the one at the end
	atStart := true
	for {
		line, whole := b.line()
		if len(line) == 0 {
			break
		}
		if atStart && strings.HasPrefix(string(line), fromLine) {
			b.from, b.more = string(line), true
			b.rest(whole)
			break
		}
		size += int64(len(line))
		if atStart && isQuoted(line) {
			line = line[1:]
		}
		body, held = append(body, held...), held[:0]
		if atStart && whole && len(bytes.TrimRight(line, "\r\n")) == 0 {
			held = append(held, line...)
		} else {
			body = append(body, line...)
		}
		if int64(len(body)) > b.limit {
			body, err = nil, fmt.Errorf("%w: AMQP_MAX_MESSAGE_BYTES is %d", ErrTooLarge, b.limit)
			size += b.skip()
			break
		}
		atStart = whole
	}
	return body, size, err
}

// skip reads to the next From line.
func (b *mbox) skip() (size int64) {
	atStart := false
	for {
		line, whole := b.line()
		if len(line) == 0 {
			return size
		}
		if atStart && strings.HasPrefix(string(line), fromLine) {
			b.from, b.more = string(line), true
			b.rest(whole)
			return size
		}
		size += int64(len(line))
		atStart = whole
	}
}

func isQuoted(line []byte) bool {
	return len(line) > 0 && line[0] == '>' && bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte(fromLine))
}

// fromTime reads when a mail came out of its From line; the zero time when that cannot be read. The line has no zone, as a rule; then it is
// taken for UTC.
func fromTime(line string) time.Time {
	words := strings.Fields(line)
	for _, layout := range []string{"Mon Jan 2 15:04:05 2006", "Mon Jan 2 15:04:05 MST 2006", "Mon Jan 2 15:04:05 -0700 2006", "Mon Jan 2 15:04:05 2006 -0700"} {
		if n := len(strings.Fields(layout)); len(words) > n {
			if at, err := time.Parse(layout, strings.Join(words[len(words)-n:], " ")); err == nil {
				return at.UTC()
			}
		}
	}
	return time.Time{}
}
