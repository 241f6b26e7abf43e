package hostile

import (
	"slices"
	"strings"
	"time"
)

func interleaved() Scenario {
	return Scenario{
		About: "Two FETCHes at once are worked on at once, and their answers come mixed, as from Dovecot.",
		Setup: func(s *Server) { s.Fill("INBOX", 1, 300) },
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if !c.Bodies() {
					return false
				}
				next := s.next(300 * time.Millisecond)
				if next == nil {
					return false
				}
				if !next.Bodies() {
					s.Honest(c)
					s.Honest(next)
					return true
				}
				s.always()
				s.mix(c, next)
				return true
			},
		},
	}
}

// next reads the next command, if it is sent before the wait is over. It is for connections without TLS.
func (s *Session) next(wait time.Duration) *Command {
	_ = s.raw.SetReadDeadline(time.Now().Add(wait))
	_, err := s.read.Peek(1)
	_ = s.raw.SetReadDeadline(time.Time{})
	if err != nil {
		return nil
	}
	c, err := s.readCommand()
	if err != nil {
		return nil
	}
	return c
}

// mix answers several FETCHes of bodies, a mail of each in turn, and ends the last one first.
func (s *Session) mix(commands ...*Command) {
	left := make([][]uint32, len(commands))
	for i, c := range commands {
		set, _, _ := strings.Cut(c.Args, " ")
		left[i], _ = s.picked(set) // what is no set gets nothing
	}
	for more := true; more; {
		more = false
		for i, c := range commands {
			if len(left[i]) == 0 {
				continue
			}
			if m, there := s.mail(left[i][0], true); there {
				s.SendMail(c, m)
			}
			left[i], more = left[i][1:], true
		}
	}
	for _, c := range slices.Backward(commands) {
		s.OK(c, "done")
	}
}
