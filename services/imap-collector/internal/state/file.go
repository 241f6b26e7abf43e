package state

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
)

// header is the first line of a file.
type header struct {
	Account     string `json:"account"`
	Folder      string `json:"folder"`
	UIDValidity uint32 `json:"uidvalidity"`
}

const (
	magic   = "spamtraps-imap-state"
	version = 1

	// maxFileBytes is far beyond a folder of two million mails of which each second was published.
	maxFileBytes = 256 << 20
	// maxLineBytes bounds what reading a line takes; rangesPerLine keeps what is written far below it.
	maxLineBytes  = 1 << 20
	rangesPerLine = 4096
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// line is the header as it is written.
func (h header) line() []byte {
	fields, err := json.Marshal(h)
	if err != nil {
		panic(err) // two strings and a number
	}
	return fmt.Appendf(nil, "%s %d %s\n", magic, version, fields)
}

// appendLines appends the set as lines of a file. The sum of a line covers the UIDVALIDITY as well: it is what the UIDs mean.
func (u uids) appendLines(text []byte, h header) []byte {
	for len(u) > 0 {
		n := min(len(u), rangesPerLine)
		begin := len(text)
		text = u[:n].appendText(text)
		text = fmt.Appendf(text, " %08x\n", sum(string(text[begin:]), h))
		u = u[n:]
	}
	return text
}

func sum(text string, h header) uint32 {
	return crc32.Checksum([]byte(text), castagnoli) ^ h.UIDValidity
}

// contents is what is in a file.
type contents struct {
	header header
	all    uids
	bad    int   // lines that are not as they were written
	size   int64 // bytes
}

// errDamaged is for a file that is not as any version of this program writes it.
var errDamaged = errors.New("is not what was written")

// read reads a file. The error is errDamaged, or that of the disk, or says that another version wrote it.
func read(file io.Reader) (contents, error) {
	var found contents
	lines := bufio.NewReaderSize(file, 64<<10)
	first, ended, err := readLine(lines)
	if err != nil {
		return found, err
	}
	if !ended {
		return found, errDamaged
	}
	if err := found.header.parse(first); err != nil {
		return found, err
	}
	found.size = int64(len(first)) + 1
	var ranges []Range
	for {
		line, ended, err := readLine(lines)
		if err != nil {
			return found, err
		}
		if line == "" && !ended {
			break
		}
		found.size += int64(len(line))
		if ended {
			found.size++
		}
		if found.size > maxFileBytes {
			return found, fmt.Errorf("%w: it is larger than %d bytes", errDamaged, maxFileBytes)
		}
		more, ok := found.header.parseLine(line)
		if !ok || !ended {
			found.bad++
			continue
		}
		ranges = append(ranges, more...)
	}
	found.all = setOf(ranges)
	return found, nil
}

// readLine returns a line without its end, and whether it had one.
func readLine(lines *bufio.Reader) (line string, ended bool, err error) {
	var text []byte
	for {
		part, err := lines.ReadSlice('\n')
		text = append(text, part...)
		switch {
		case len(text) > maxLineBytes:
			return "", false, fmt.Errorf("%w: a line is longer than %d bytes", errDamaged, maxLineBytes)
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return string(text), false, nil
		case err != nil:
			return "", false, err
		default:
			return string(text[:len(text)-1]), true, nil
		}
	}
}

func (h *header) parse(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	number, fields, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(number, 10, 16)
	switch {
	case word != magic || err != nil:
		return errDamaged
	case n != version:
		return fmt.Errorf("is of version %d, which this program does not know: it is left alone", n)
	case json.Unmarshal([]byte(fields), h) != nil:
		return errDamaged
	}
	return nil
}

func (h header) parseLine(line string) ([]Range, bool) {
	text, check, _ := strings.Cut(line, " ")
	want, err := strconv.ParseUint(check, 16, 32)
	if err != nil || len(check) != 8 || uint32(want) != sum(text, h) {
		return nil, false
	}
	ranges, err := parseUIDs(text)
	return ranges, err == nil
}
