package maildir

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// copies are the mails that the broker has and that stay, by their envelopes in done/.
type copies struct {
	mu      sync.Mutex
	mails   int64
	bytes   int64
	current string // the bucket that Keep fills now
	filled  int
	began   time.Time

	dropping sync.Mutex // held by the one who drops some
}

func (c *copies) add(mails, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mails += mails
	c.bytes += bytes
}

func (c *copies) stats() (mails, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mails, c.bytes
}

func (c *copies) any() bool {
	mails, _ := c.stats()
	return mails > 0
}

// bucket returns the folder for the envelope of one more copy.
func (c *copies) bucket(done string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == "" || c.filled >= bucketMails || time.Since(c.began) > bucketLasts {
		path := filepath.Join(done, bucketName(time.Now()))
		if err := os.Mkdir(path, 0o700); err != nil {
			return "", err
		}
		c.current, c.filled, c.began = path, 0, time.Now()
	}
	c.filled++
	return c.current, nil
}

// count adds the copies that lay there before this process. It is called before there are others.
func (c *copies) count(ctx context.Context, done string) {
	buckets, err := listFolder(done)
	if err != nil {
		return
	}
	for _, bucket := range buckets {
		names, err := listFolder(filepath.Join(done, bucket))
		if err != nil || ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		current := filepath.Join(done, bucket) == c.current
		c.mu.Unlock()
		if current {
			continue
		}
		for _, name := range names {
			base, _ := cut(name, envelopeSuffix)
			if _, size, ours := parseName(base); ours {
				c.add(1, size)
			}
		}
	}
}

// makeRoom sees to it that there is room for size more bytes: copies go, oldest first, before any mail is refused.
func (m *Maildir) makeRoom(size int64) error {
	err := m.room(size)
	if err == nil || !m.copies.any() {
		return err
	}
	m.copies.dropping.Lock()
	defer m.copies.dropping.Unlock()
	m.dropUntil(func(time.Time) bool { return m.room(size+moreRoom) == nil })
	return m.room(size)
}

// moreRoom is how much more room than is needed is made at once, since finding the oldest copies has a price.
const moreRoom = 16 << 20

// dropCopies drops copies that are too old or too many.
func (m *Maildir) dropCopies(ctx context.Context) {
	if m.cfg.MaxAge == 0 && m.cfg.MaxBytes == 0 {
		return
	}
	m.copies.dropping.Lock()
	defer m.copies.dropping.Unlock()
	m.dropUntil(func(oldest time.Time) bool {
		if ctx.Err() != nil {
			return true
		}
		_, bytes := m.copies.stats()
		tooOld := m.cfg.MaxAge > 0 && time.Since(oldest) > m.cfg.MaxAge
		return !tooOld && (m.cfg.MaxBytes == 0 || bytes <= m.cfg.MaxBytes)
	})
}

// dropUntil deletes copies, oldest first, until enough says so or there are no more. The caller holds dropping.
func (m *Maildir) dropUntil(enough func(oldest time.Time) bool) {
	buckets, err := listFolder(m.path(doneFolder))
	if err != nil {
		m.log.Error().Err(err).Msg("the maildir's copies cannot be listed: none of them can be dropped")
		return
	}
	for _, bucket := range buckets {
		names, err := listFolder(m.path(doneFolder, bucket))
		if err != nil {
			continue // dropped meanwhile, or the next look says it
		}
		for _, name := range names {
			base, _ := cut(name, envelopeSuffix)
			at, size, ours := parseName(base)
			if !ours {
				continue
			}
			if enough(at) {
				return
			}
			if err := m.dropCopy(bucket, base, size); err != nil {
				m.log.Error().Err(err).Str("spool_name", base).Msg("a copy cannot be dropped")
				return
			}
		}
		_ = os.Remove(m.path(doneFolder, bucket)) // it stays when it is being filled
		m.copies.forget(m.path(doneFolder, bucket))
	}
}

// forget makes sure that a bucket which is no more is not filled any further.
func (c *copies) forget(bucket string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == bucket {
		c.current = ""
	}
}

// lookAgain is how long a look through the folders for copies that mail programs have moved about is good for.
const lookAgain = 10 * time.Minute

func (m *Maildir) dropCopy(bucket, name string, size int64) error {
	if err := m.removeMail(name, time.Now().Add(-lookAgain)); err != nil {
		return err
	}
	if err := remove(m.path(doneFolder, bucket, name+envelopeSuffix)); err != nil {
		return err
	}
	m.copies.add(-1, -size)
	m.metrics.dropped.Inc()
	return nil
}
