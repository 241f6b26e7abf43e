package hostile

import (
	"strings"
)

func capabilityFlood() Scenario {
	return Scenario{
		About: "The list of capabilities has 50 MB.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "CAPABILITY" || !s.fault(2) {
					return false
				}
				s.Send("* CAPABILITY IMAP4rev1")
				word := []byte(strings.Repeat(" XYZ", 1<<14))
				for range 50 << 20 / len(word) {
					if !s.SendBytes(word) {
						return true
					}
				}
				s.Send("\r\n")
				s.OK(c, "done")
				return true
			},
			Greet: func(s *Session) bool {
				s.Send("* OK ready\r\n")
				return true
			},
		},
		Want: Want{Faults: -1},
	}
}
