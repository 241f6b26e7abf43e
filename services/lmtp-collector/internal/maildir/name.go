package maildir

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"time"
)

// namePattern is how our base names look. Seconds have ten digits until the year 2286, so names sort by time.
var namePattern = regexp.MustCompile(`^(\d{10})\.M(\d{6})P\d+R[0-9a-f]{16}\.[^,]+,S=(\d+)$`)

// newName returns a base name that no other mail has, of a mail of size bytes that came at a time. Nothing of it is taken from the mail.
func (m *Maildir) newName(at time.Time, size int) string {
	return fmt.Sprintf("%010d.M%06dP%dR%s.%s,S=%d", at.Unix(), at.Nanosecond()/1000, os.Getpid(), random(), m.host, size)
}

func random() string {
	var id [8]byte
	_, _ = rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}

// parseName reads when a mail came, and its size, out of its base name.
func parseName(base string) (at time.Time, size int64, ok bool) {
	found := namePattern.FindStringSubmatch(base)
	if found == nil {
		return time.Time{}, 0, false
	}
	seconds, err1 := strconv.ParseInt(found[1], 10, 64)
	micros, err2 := strconv.ParseInt(found[2], 10, 64)
	size, err3 := strconv.ParseInt(found[3], 10, 64)
	return time.Unix(seconds, micros*1000), size, err1 == nil && err2 == nil && err3 == nil
}
