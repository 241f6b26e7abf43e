package command

import (
	"os"
	"sync"

	"github.com/vbauerster/mpb/v8"

	"spamtraps.internal/libs/daemon"
)

// Screen is stderr, shared by the log and the lines of progress: while these are shown, the log scrolls above them. It is safe for concurrent use.
type Screen struct {
	file *os.File

	mu   sync.Mutex
	bars *mpb.Progress // nil: none are shown
}

// NewScreen returns a screen that writes to file.
func NewScreen(file *os.File) *Screen { return &Screen{file: file} }

// IsTerminal tells whether a person looks at it.
func (s *Screen) IsTerminal() bool { return daemon.IsTerminal(s.file) }

// Write writes whole lines.
func (s *Screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bars != nil {
		if n, err := s.bars.Write(p); err == nil {
			return n, nil
		}
	}
	return s.file.Write(p)
}

func (s *Screen) show(bars *mpb.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bars = bars
}
