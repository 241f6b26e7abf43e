package hostile

import (
	"strings"
)

func lineInfinite() Scenario {
	return Scenario{
		About: "A line has no end.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if !c.Bodies() || !s.fault(2) {
					return false
				}
				s.Send("* OK ")
				line := []byte(strings.Repeat("x", 64<<10))
				for range 400 << 20 / len(line) {
					if !s.SendBytes(line) {
						return true
					}
				}
				return s.Drop()
			},
		},
	}
}
