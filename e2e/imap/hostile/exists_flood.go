package hostile

import (
	"strings"
)

func existsFlood() Scenario {
	return Scenario{
		About: "In IDLE the server tells of new mail without end.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "IDLE" || !s.fault(1) {
					return false
				}
				s.Send("+ idling\r\n")
				line := []byte(strings.Repeat("* 6 EXISTS\r\n", 1000))
				for range 64 << 20 / len(line) {
					if !s.SendBytes(line) {
						return true
					}
				}
				return s.Drop()
			},
		},
	}
}
